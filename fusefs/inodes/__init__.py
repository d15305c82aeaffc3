"""What the kernel knows by number: inodes, names, attributes, listings."""
