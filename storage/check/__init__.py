"""Finds and repairs faults in a store."""
