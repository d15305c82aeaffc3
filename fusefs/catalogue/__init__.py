"""The list of sessions with a line for each, kept up to date by events at any number of sessions."""
