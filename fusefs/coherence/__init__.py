"""How changes of the store reach sessions, the kernel's caches and those who wait."""
