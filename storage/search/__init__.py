"""Searching the steps of sessions for a pattern, those before a compaction too.

A step's bytes tell in most cases that nothing in it matches: the pattern's own text would stand in them
as it is. Only the others are parsed. What tools were given and what they answered is left out unless it
is asked for: it carries credentials more often than words.
"""
