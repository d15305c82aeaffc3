"""One session: its state, refreshing and writing it, and the pool of open ones."""
