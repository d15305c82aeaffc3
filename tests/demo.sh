#!/bin/sh
# What stepfs does, in a dozen commands, on a sample store in a temporary directory. Each is printed
# and then run; nothing stays behind, also when one fails.
set -eu

place=$(mktemp -d)
cleanup() {
    cd /
    stepfs umount "$place/sessions" 2>/dev/null || fusermount3 -uzq "$place/sessions" || true
    rm -rf --one-file-system "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

if [ -t 1 ]; then bold=$(printf '\033[1m') green=$(printf '\033[32m') plain=$(printf '\033[0m')
else bold='' green='' plain=''; fi

show() {
    printf '\n%s\n' "$bold# $1$plain"
    shift
    for command; do
        printf '%s\n' "$green\$ $command$plain"
        eval "$command"
    done
}

cd "$place"
mkdir sessions

show 'A sample store: a directory per session, a file per step.' \
    'stepfs demo store' \
    'ls store/crab_tg-42_1'

show 'Mounted, in the background.' \
    'stepfs mount store sessions' \
    'ls sessions' \
    'ls sessions/crab_tg-42_1'

show 'The history of a session since its last compaction.' \
    'cat sessions/crab_tg-42_1/history.jsonl'

show 'A message is appended by writing a line ...' \
    "echo '{\"role\":\"user\",\"content\":\"And now from the shell.\"}' >sessions/crab_tg-42_1/append"

show '... and is in the history at once, and in the store as a step of its own.' \
    'tail -n 1 sessions/crab_tg-42_1/history.jsonl' \
    'ls store/crab_tg-42_1 | tail -n 2' \
    'cat "store/crab_tg-42_1/$(ls store/crab_tg-42_1 | tail -n 1)"; echo'

show 'A compaction: what came before is in the archive named, the history begins anew.' \
    'echo tuesday >sessions/crab_tg-42_1/compact' \
    'cat sessions/crab_tg-42_1/compact' \
    'wc -l <sessions/crab_tg-42_1/history.jsonl' \
    "echo '{\"role\":\"user\",\"content\":\"What did we say on Tuesday?\"}' >sessions/crab_tg-42_1/append" \
    'cat sessions/crab_tg-42_1/history.jsonl'

show 'Unmounted. The store is what is left.' \
    'stepfs umount sessions' \
    'ls store/crab_tg-42_1 | tail -n 3'
