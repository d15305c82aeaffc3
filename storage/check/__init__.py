"""Finds and mends what is wrong with a store."""
