"""The list of sessions, with a line for each, kept up to date by events however many there are."""
