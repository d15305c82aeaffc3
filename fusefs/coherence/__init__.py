"""How changes of the store reach the kernel's caches and those who wait."""
