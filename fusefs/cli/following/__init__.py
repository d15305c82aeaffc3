"""The parts of `stepfs follow`: views, one session, all sessions, output."""
