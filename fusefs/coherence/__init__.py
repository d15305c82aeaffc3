"""Propagates changes in the store to sessions, to the kernel's caches and to waiters in poll(2)."""
