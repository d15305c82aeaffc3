"""The text of views: formats, the bytes of one inode, the text cache."""
