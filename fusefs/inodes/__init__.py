"""Inodes: names, attributes, permissions, listings."""
