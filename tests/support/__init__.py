"""Support code for the tests: hand-written stores, mounts served by another process, drivers."""
