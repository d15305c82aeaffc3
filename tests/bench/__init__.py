"""How fast the mount is, against what does the same without it."""
