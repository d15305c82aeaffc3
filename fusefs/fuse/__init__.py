"""pyfuse3 and the kernel: operations translated, caches told, the connection guarded."""
