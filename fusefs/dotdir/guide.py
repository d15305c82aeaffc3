"""The text of `.stepfs/README`: explains the mounted tree to its users."""

from typing import Final

GUIDE: Final = b"""\
This is a store of chat sessions, mounted by stepfs. Each session is a directory:

  <session>/history.jsonl   the history since the last compaction, one entry per line
  <session>/messages.jsonl  the same, as it is sent to a model provider, one message per line
  <session>/history.md      the same for people
  <session>/log.jsonl       every step from the first on, compactions and events included
  <session>/meta.json       title, agent, times and so on; write a JSON object to change keys
  <session>/append          write entries, events or messages here, one JSON object per line
  <session>/compact         write the name of an archive here, or one with a summary

and .stepfs, the directory of this file, is about all of them:

  .stepfs/sessions.jsonl    one line per session
  .stepfs/latest/           links <agent>_<sender> to the newest session of that pair
  .stepfs/create            creates a session
  .stepfs/status.json       the state of the mount
  .stepfs/errors.jsonl      what was refused or failed lately, and why; newest last

Read and follow:

  cat <session>/history.jsonl
  tail -f <session>/history.jsonl
  jq -r .content <session>/messages.jsonl
  grep -r "deploy" .
  less <session>/history.md

Append a message, or many:

  echo '{"role":"user","content":"hello"}' > <session>/append
  cat messages.jsonl > <session>/append

A line that is refused fails the write (EINVAL); the last line of .stepfs/errors.jsonl says why:

  tail -n 1 .stepfs/errors.jsonl | jq .

Compact: the history begins anew, and messages.jsonl begins with the summary, which is stored in the
daemon's memory if that is an exported tree; if it is the daemon's database, write a name alone:

  echo '{"archive_name":"plan-1","summary":"Plan B, to be tested."}' > <session>/compact
  echo crab-session-1 > <session>/compact

Change the meta; null removes a key:

  echo '{"title":"Deploy plan"}' > <session>/meta.json

Create a session, and read its name:

  exec 3<>.stepfs/create
  echo '{"agent":"Crab","created_by":"tg:42"}' >&3
  read slug <&3
  exec 3>&-

With {"from":"<session>","at":120} the new session has copies of another's steps, up to that number
or, without "at", all of them.

See a session as it was before a compaction, at a step, or at a time. No listing shows these names:

  ls <session>/.epochs
  cat <session>/.epochs/1/history.jsonl
  cat <session>/.at/120/messages.jsonl
  less <session>/.at/2026-04-28T12:00:00Z/history.md

Create a session with a given name, and delete one with all that is in it:

  mkdir crab_tg-42_7
  rmdir crab_tg-42_7
"""
