"""Hints between hosts over Redis publish/subscribe: mounts announce at once what they store (G28).

A hint only names sessions. It is never trusted: it just makes a mount examine those sessions a little
earlier than otherwise. So a hint that is lost, late or forged costs at most time, and a Redis that is
down or silent delays nothing: hints that cannot be sent are dropped.

Everything here is bounded: how many names wait to be sent or examined, how long a message may be, and
how many messages per second are accepted before the connection is closed for a while.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import warnings
from collections.abc import AsyncIterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

from fusefs.owed import Owed

if TYPE_CHECKING:
    import coredis

CHANNEL: Final = "stepfs"
SENDER_BYTES: Final = 8
MESSAGE_BYTES: Final = 4096
"""A message longer than this is not a hint."""
MESSAGE_SESSIONS: Final = 15
"""Sessions named in one message: with names of 255 bytes that fills a message."""
WAITING_SESSIONS: Final = 1024
"""Limit of names waiting to be sent, and of names waiting to be examined; more hints are lost."""
PACE_SECONDS: Final = 0.005
"""Pause between sending two messages, and between examining two batches of named sessions."""
ANSWER_SECONDS: Final = 2.0
"""Timeout for a reply from Redis."""
PING_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = 0.2
BACKOFF_MOST_SECONDS: Final = 30.0
FLOOD_MESSAGES: Final = 5000
"""More messages than this within a second are a flood: no message is taken for `FLOOD_SECONDS`."""
FLOOD_SECONDS: Final = 10.0

log: Final = logging.getLogger(__name__)


class State(Enum):
    """The state of the connection."""

    WAITING = "waiting for Redis"
    CONNECTED = "connected"
    FLOODED = "too many messages: not listening for a while"


class FloodError(Exception):
    """More messages arrived than real hosts would send."""


class Hints:
    """Announces what this mount stores, and gathers the announcements of others. Loop-owned."""

    def __init__(self, url: str) -> None:
        """`url` is the value of the `notify` option: `redis://`, `rediss://` or `unix://`."""
        self._url = url
        self._sender = secrets.token_hex(SENDER_BYTES // 2).encode()
        self._state = State.WAITING
        self._error = ""
        self._sent = self._received = self._ignored = 0
        self._outgoing = Owed[str]()
        self._incoming = Owed[str]()

    def stored(self, slug: str) -> None:
        """This mount stored something in a session, or created or deleted it. Never waits."""
        if self._state is State.CONNECTED and len(self._outgoing) < WAITING_SESSIONS:
            self._outgoing.add(slug)

    async def take(self) -> list[str]:
        """Wait for hints of others: names of sessions, each once, in no particular order."""
        await trio.sleep(PACE_SECONDS)
        return await self._incoming.take_some(WAITING_SESSIONS)

    def document(self) -> dict[str, Any]:
        """The state of the connection for `status.json`, without the password."""
        return {
            "redis": shown(self._url),
            "state": self._state.value,
            "error": self._error,
            "sent": self._sent,
            "received": self._received,
            "ignored": self._ignored,
        }

    async def run(self) -> None:
        """Stay connected, and reconnect whenever the connection is lost, until cancelled."""
        backoff = BACKOFF_SECONDS
        while True:
            try:
                await self._exchange()
            except* Exception as errors:  # no error here may cost more than time
                # On a cancellation the client may raise more errors, which must not leave this method.
                if self._state is State.CONNECTED:
                    backoff = BACKOFF_SECONDS
                if trio.current_effective_deadline() > -math.inf:
                    self._lost(_first(errors))
            pause = FLOOD_SECONDS if self._state is State.FLOODED else backoff
            await trio.sleep(pause * random.uniform(0.75, 1.25))
            backoff = min(2 * backoff, BACKOFF_MOST_SECONDS)

    def _lost(self, error: Exception) -> None:
        self._outgoing.clear()
        self._state = State.FLOODED if isinstance(error, FloodError) else State.WAITING
        first, self._error = not self._error, f"{error}" or type(error).__name__
        if first:  # of this outage
            log.warning("no hints from %s for now: %s", shown(self._url), self._error)

    async def _exchange(self) -> None:
        """Send and receive until the connection is lost, which raises."""
        import coredis  # an optional dependency
        from coredis.retry import NoRetryPolicy

        logging.getLogger("coredis").disabled = True  # `_lost` logs the same errors
        # After a failed connection the client leaves its queues to the garbage collector: only memory.
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
        client = coredis.Redis.from_url(
            self._url,
            decode_responses=False,
            retry_policy=NoRetryPolicy(),
            connect_timeout=ANSWER_SECONDS,
            stream_timeout=ANSWER_SECONDS,
            **_password(self._url),
        )
        async with (
            client,
            client.pubsub(
                channels=[CHANNEL],
                ignore_subscribe_messages=True,
                retry_policy=NoRetryPolicy(),
                subscription_timeout=ANSWER_SECONDS,
                max_idle_seconds=PING_SECONDS,
            ) as messages,
            trio.open_nursery() as nursery,
        ):
            self._state, self._error = State.CONNECTED, ""
            log.info("hints are exchanged over %s", shown(self._url))
            nursery.start_soon(self._send, client)
            nursery.start_soon(self._ping, client)
            await self._receive(messages)
            raise ConnectionError("Redis ended the subscription")

    async def _send(self, client: coredis.Redis[bytes]) -> None:
        while True:
            slugs = await self._outgoing.take_some(MESSAGE_SESSIONS)
            await client.publish(CHANNEL, encode(self._sender, slugs))
            self._sent += 1
            await trio.sleep(PACE_SECONDS)

    async def _ping(self, client: coredis.Redis[bytes]) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            await client.ping()

    async def _receive(self, messages: AsyncIterable[Any]) -> None:
        began, count = trio.current_time(), 0
        async for message in messages:
            if trio.current_time() - began > 1:
                began, count = trio.current_time(), 0
            count += 1
            if count > FLOOD_MESSAGES:
                raise FloodError(f"more than {FLOOD_MESSAGES} messages within a second")
            self._take_in(message["data"])

    def _take_in(self, data: bytes) -> None:
        found = decode(data)
        if found is None:
            self._ignored += 1
            return
        sender, slugs = found
        if sender == self._sender:
            return
        self._received += 1
        for slug in slugs:
            if len(self._incoming) < WAITING_SESSIONS:
                self._incoming.add(slug)


def encode(sender: bytes, slugs: list[str]) -> bytes:
    """A message naming up to `MESSAGE_SESSIONS` sessions, each ended by NUL, which no name contains."""
    return b"\0".join([sender, *map(os.fsencode, slugs)])


def decode(data: object) -> tuple[bytes, list[str]] | None:
    """The sender of a message and the sessions that it names; None if it is not a hint."""
    if not isinstance(data, bytes) or len(data) > MESSAGE_BYTES:
        return None
    sender, *slugs = data.split(b"\0")
    if len(sender) != SENDER_BYTES or not 0 < len(slugs) <= MESSAGE_SESSIONS or not all(slugs):
        return None
    return sender, list(map(os.fsdecode, slugs))


def shown(url: str) -> str:
    """The URL without a password."""
    place = urlsplit(url).netloc
    return url.replace(place, place.rpartition("@")[2], 1)


def _password(url: str) -> dict[str, Any]:
    """The password from redis-cli's environment variable, unless the URL has one.

    Unlike the URL, the environment shows in no process list.
    """
    password = os.environ.get("REDISCLI_AUTH")
    return {"password": password} if password and urlsplit(url).password is None else {}


def _first(error: Exception) -> Exception:
    """The first error in nested exception groups, as nurseries raise them."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
