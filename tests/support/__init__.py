"""What the tests stand on: stores written by hand, mounts served by another process, drivers."""
