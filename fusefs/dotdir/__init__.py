"""`.stepfs`: information about the mount and all sessions."""
