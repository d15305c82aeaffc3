"""How fast the mount is, compared with doing the same without it."""
