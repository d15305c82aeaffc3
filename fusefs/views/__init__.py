"""The text of views: formats, epochs (the bytes of one inode), the text cache."""
