"""The interface to pyfuse3 and the kernel: operations, cache invalidation, the abort guard."""
