"""`.stepfs`: what the mount tells of itself and of all sessions."""
