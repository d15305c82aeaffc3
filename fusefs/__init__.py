"""The mount: the store shown as a file system.

The file system and its control files know no pyfuse3: only `fusefs.fuse` talks to the kernel.
"""
