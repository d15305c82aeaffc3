"""One session: what is known of it, its writer, and the pool of live ones."""
