"""The store: a directory of chat sessions, one file per step.

This package knows files and nothing of the kernel's file system interface. It is synchronous and
imports neither trio nor pyfuse3; whoever calls it decides which thread may block.
"""
