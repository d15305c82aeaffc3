"""The conversations of the sample store: one function builds one session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from storage.demo.block_sessions import PIXEL, forms
from storage.demo.story import Story


def full_disk(start: datetime) -> Story:
    """A plain session: a question, tool calls, an answer."""
    story = Story("Crab", "tg:42", start, "Disk almost full on harbor")
    story.user("harbor says the disk is at 97 %. What is eating it?")
    story.runs(
        ("bash", {"cmd": "df -h / /var"}, _DF),
        ("bash", {"cmd": "du -xsh /var/* | sort -h | tail -4"}, _DU),
        says="I'll look at both file systems first.",
        thinks="97 % of which file system? df first, then the largest directories below /var.",
    )
    story.runs(
        (
            "bash",
            {"cmd": "journalctl --disk-usage"},
            "Archived and active journals take up 31.2G.\n",
        ),
    )
    story.says(
        "It is the journal: **31 GB** of 40 GB in `/var`. Nothing limits it yet.\n\n"
        "1. `journalctl --vacuum-size=2G` frees about 29 GB now.\n"
        "2. `SystemMaxUse=2G` in `/etc/systemd/journald.conf` keeps it so.\n\n"
        "Shall I do both?",
        thinks="Vacuuming loses logs older than about two weeks; ask before doing that.",
    )
    story.done(prompt_tokens=2112)
    story.user("Both, please.", wait=95)
    story.runs(
        (
            "bash",
            {"cmd": "journalctl --vacuum-size=2G"},
            "Vacuuming done, freed 29.1G of archived journals.\n",
        ),
        (
            "edit",
            {
                "path": "/etc/systemd/journald.conf",
                "old": "#SystemMaxUse=",
                "new": "SystemMaxUse=2G",
            },
            "1 replacement\n",
        ),
    )
    story.says("Done. `/var` is at 24 % and stays below 2 GB of journal.")
    story.done(prompt_tokens=2920)
    return story


def deploy(start: datetime) -> Story:
    """A long session, compacted once, with the summary kept in meta."""
    story = Story("Crab", "tg:42", start, "Deploy plan for the ferry timetable")
    story.summary = "Blue-green deploy of the timetable service; database migration goes first."
    story.user("We deploy the ferry timetable on Thursday. Draft a plan, no downtime.")
    story.says(
        "## Plan\n\n| step | who | when |\n| --- | --- | --- |\n| migrate | Crab | Wed 22:00 |\n"
        "| switch to green | Ana | Thu 06:30 |\n| remove blue | Crab | Fri |\n\n"
        "The migration only *adds* columns, so blue keeps running on the new schema."
    )
    story.user("What if green misbehaves at 06:30?")
    story.says("Switch back: blue stays up until Friday, and the schema fits both.")
    story.done()
    story.compacts("crab-deploy-plan-1")
    story.user("It's Wednesday, 22:00. Run the migration.", wait=86_000)
    story.runs(
        ("bash", {"cmd": "alembic upgrade head"}, _MIGRATION),
        thinks="The archive says that the migration is additive. Check once more, then run it.",
    )
    story.says("Migrated in 1.8 s; blue answers as before (p95 41 ms).")
    story.done(prompt_tokens=910)
    story.user("Go to green 🟢", wait=30_600)
    story.runs(
        ("http", {"method": "POST", "url": "http://lb.internal/switch?to=green"}, "204 No Content")
    )
    story.says("Green serves everything since 06:30:14. I'll watch the error rate for ten minutes.")
    story.steered("also watch the cache hit rate please")
    story.runs(("metrics", {"query": "cache_hit_ratio", "minutes": 10}, '{"min":0.91,"max":0.97}'))
    story.says("No errors, and the cache is at 91–97 %. All well.")
    story.done(prompt_tokens=1630)
    return story


def many_tongues(start: datetime) -> Story:
    """Text in many scripts, and characters that only look alike."""
    story = Story("Crab", "cli:ana", start, "「おはよう」 — greetings")
    story.user(
        "How do I wish the whole crew a good morning? "
        "They speak 日本語, العربية, Ελληνικά and Íslenska."
    )
    story.says(
        "- 日本語: おはようございます (ohayō gozaimasu)\n- العربية: صباح الخير (ṣabāḥ al-khayr)\n"
        "- Ελληνικά: Καλημέρα\n- Íslenska: Góðan daginn ☀️"
    )
    story.user("And for the family of four: 👩‍👩‍👧‍👦, is that one character?")
    story.says(
        "One to the eye, seven code points to a computer: four people, three zero-width joiners. "
        "The same trap as `café` and `cafe\u0301`: the second has a combining accent, so `grep` "
        "finds only one of them."
    )
    story.done(prompt_tokens=620)
    return story


def tide_photo(start: datetime) -> Story:
    """A message in parts, one of them an image."""
    story = Story("Scout", "tg:42", start, "What the gauge reads")
    story.user(
        [
            {
                "type": "text",
                "text": "Photo of the tide gauge from this morning. What does it read?",
            },
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ]
    )
    story.says(
        "About **2.35 m**, and rising: the wet mark is below the water line.",
        thinks="The scale is in decimetres; the line is between 23 and 24.",
    )
    story.user("Thanks! The harbour office says 2.36.", wait=600)
    story.says("Then the gauge and I agree to a centimetre.")
    story.done("gpt-4o", prompt_tokens=1105)
    return story


def review(start: datetime) -> Story:
    """Guest agents speak, and texts contain code fences."""
    story = Story("Crab", "cli:ana", start, "Review of the retry loop")
    story.user(
        "Please review this, and ask @reviewer too:\n\n```python\n"
        "while True:\n    try:\n        send()\n    except:\n        continue\n```"
    )
    story.says("Three things: it catches `KeyboardInterrupt`, it never gives up, it never waits.")
    story.says(
        "I agree with Crab, and would write:\n\n```python\nfor wait in (0.1, 0.5, 2.5):\n    try:\n"
        "        return send()\n    except ConnectionError as error:\n        last = error\n"
        "        sleep(wait)\nraise last\n```",
        guest="reviewer",
        thinks="A bounded back-off, and only for errors that another try can cure.",
    )
    story.says("Mind that `send()` is not idempotent: a retry may bill twice.", guest="Scout")
    story.user("Good catch, Scout. Write it down.")
    story.runs(
        (
            "write_file",
            {
                "path": "docs/retries.md",
                "content": "# Retries\n\nGive every request a key:\n\n"
                "```http\nIdempotency-Key: 7d1f\n```\n",
            },
            "wrote docs/retries.md (71 bytes):\n```http\nIdempotency-Key: 7d1f\n```\n",
        )
    )
    story.says("Written to `docs/retries.md`.")
    story.done(prompt_tokens=1911)
    return story


def night_watch(start: datetime) -> Story:
    """Written by a timer; gaps in the numbers are left by steps that were moved."""
    story = Story("Scout", "cron", start, "Nightly report")
    for night, found in enumerate(
        ("nothing new", "2 failed logins from 203.0.113.9", "nothing new"), 1
    ):
        story.user(f"nightly report {night}", wait=86_400)
        story.runs(("bash", {"cmd": "lastb -s yesterday | wc -l"}, f"{2 * (night == 2)}\n"))
        story.says(f"Night {night}: {found}.")
        story.done(prompt_tokens=400)
        if night == 2:
            story.skips(1000)
    story.skips(2)
    story.user("Were those two logins a person?", wait=3_600)
    story.says("Unlikely: both within 40 ms, for `admin` and `root`. Now blocked for a week.")
    return story


def old_books(start: datetime) -> Story:
    """Compacted by an older daemon, with the summary in the step itself."""
    story = Story("Archivist", "discord:lena", start, "Catalogue of the chart room")
    story.user("Let's catalogue the charts. The first is Admiralty 2182A, North Sea.")
    story.says("Noted: 2182A, North Sea southern sheet, 1:750 000.")
    story.compacts_in_legacy_form(
        "Lena catalogues sea charts. So far: Admiralty 2182A (North Sea, southern sheet).",
        "Catalogue of the chart room",
    )
    story.user("Next: Imray C24, with coffee stains.", wait=300)
    story.says("Imray C24, Flamborough Head to Fife Ness. Condition: *fair, one cup*.")
    story.user("🤣 two cups")
    story.says("Condition: *fair, two cups*.")
    return story


def torn(start: datetime) -> Story:
    """One step was cut short by a crash; the rest stays readable."""
    story = Story("Scout", "cli:ana", start, "Power cut while writing")
    story.user("Is the backup generator on?")
    story.says("Yes, since 14:02. Mains failed at 14:01:47.")
    story.user("Write that to the log book.")
    story.tears(b'{"message":{"role":"assistant","content":"Log book, 14:0')
    story.user("Scout? The lights were out for a second.", wait=180)
    story.says(
        "Back again. My last answer was lost when the power went; the log book has the entry."
    )
    return story


def novel(start: datetime) -> Story:
    """Two compactions, only the last of which counts."""
    story = Story("Crab", "discord:lena", start, "A lighthouse keeper's novel")
    story.user("Chapter one: the keeper finds a bottle. Help me begin.")
    story.says("> The bottle had come a long way to be this disappointing.\n\nToo flippant?")
    story.user("Perfect, actually.")
    story.compacts("crab-lighthouse-1")
    story.user("Chapter two. What was in the bottle?")
    story.says("A receipt. For a lighthouse. *Paid in full, 1888.*")
    story.compacts("crab-lighthouse-2")
    story.user("Chapter three: who bought it?", wait=4_000)
    story.says(
        "Let it be the keeper's own grandmother, who never mentioned the sea.",
        thinks="A twist that uses chapters one and two: the date, and the silence of the family.",
    )
    story.done("claude-opus-4", prompt_tokens=770)
    return story


def poet(start: datetime) -> Story:
    """An agent and a sender whose names are not ASCII."""
    story = Story("Écrivain", "user:Zoë Müller²", start, "Haïku du port")
    story.user("Un haïku sur le port, s'il te plaît.")
    story.says("Grues immobiles —\nla marée relit tout bas\nle nom des bateaux.")
    story.user("Et en deux langues ?")
    story.says(
        "Cranes standing still —\nthe tide reads over, softly,\nthe names of the boats."
        "\n\n（港の静けさ）"
    )
    return story


def long_log(start: datetime) -> Story:
    """A tool result longer than anyone wants to read."""
    story = Story("Scout", "cron", start, "Buoy telemetry")
    story.user("Fetch the last six hours of buoy 7 and tell me the highest wave.")
    rows = (
        f"2026-05-01T{minute // 60:02}:{minute % 60:02}Z buoy7 wave={_wave(minute):.2f}m"
        for minute in range(360)
    )
    story.runs(("fetch", {"url": "http://buoy7.local/log", "hours": 6}, "\n".join(rows) + "\n"))
    story.says("The highest was **3.11 m**; the sea has calmed since.")
    story.done(prompt_tokens=9_400)
    return story


def fresh(start: datetime) -> Story:
    """Just created: only a meta."""
    return Story("Crab", "tg:42", start)


SESSIONS: Final[tuple[Callable[[datetime], Story], ...]] = (
    full_disk,
    deploy,
    many_tongues,
    tide_photo,
    review,
    night_watch,
    old_books,
    torn,
    novel,
    poet,
    long_log,
    forms,
    fresh,
)


def _wave(minute: int) -> float:
    return 3.11 - abs(minute - 97) * 0.006


_DF: Final = """\
Filesystem      Size  Used Avail Use% Mounted on
/dev/vda1        20G  6.1G   13G  33% /
/dev/vdb1        40G   37G  1.2G  97% /var
"""
_DU: Final = "212M\t/var/cache\n1.4G\t/var/lib\n32G\t/var/log\n33G\ttotal\n"
_MIGRATION: Final = """\
INFO  [alembic.runtime.migration] Running upgrade 3f1c -> 8a20, add timetable.valid_from
INFO  [alembic.runtime.migration] Running upgrade 8a20 -> b77e, add timetable.source
"""
