"""Searches the steps of sessions for a pattern, including those before a compaction.

Most steps are ruled out without being parsed: a literal that every match contains does not occur in
their bytes. The input and the results of tools are only searched on request, since they are more likely
to hold credentials than words.
"""
