"""What `stepfs follow` is made of: the views it reads, a session, all sessions, what it prints."""
