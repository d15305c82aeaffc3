"""A sample store."""
