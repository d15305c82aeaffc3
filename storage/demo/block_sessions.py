"""The sample conversation in the format of later versions of the daemon."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from storage.demo.block_story import BlockStory
from storage.demo.story import Story, compact_json

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def forms(start: datetime) -> Story:
    """Content blocks, as later versions of the daemon write: an image, a guest, a failed call."""
    story = BlockStory("Crab", "tg:77", start, "Berth booking")
    picture = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    story.user(
        [
            {"type": "text", "text": "Book berth B12 for this boat, 3 nights from Friday."},
            {"type": "image", "source": picture},
        ]
    )
    booking = {"berth": "B12", "vessel": {"name": "Nordstern", "length_m": 11.4}, "nights": 3}
    story.runs(
        ("book_berth", booking, compact_json({"error": "taken", "free": ["B11", "B14"]})),
        says="I try B12 first.",
        thinks="The name on the bow is Nordstern; she is 11.4 m long.",
    )
    story.says(
        "B12 is taken. B11 and B14 are free; B14 is closer to the showers. 🚿", guest="Scout"
    )
    story.steered("B14 then!")
    story.runs(
        ("book_berth", booking | {"berth": "B14"}, compact_json({"ok": True, "ref": "N-2207"}))
    )
    story.says("Booked **B14**, Friday to Monday, reference `N-2207`.")
    story.done(prompt_tokens=1_240)
    return story
