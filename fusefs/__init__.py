"""The mount: the store shown as a file system.

The tree of nodes and its control files know no pyfuse3; `fusefs.adapter` alone translates between
them and the kernel.
"""
