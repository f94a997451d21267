"""Those who wait for a row to be durable, and how the writer thread wakes them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from llmops_core.errors import SpoolError


@dataclass(frozen=True)
class Place:
    """Where a durable row stands: the segment, and its number in it from 0."""

    segment: int
    row: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An encoded row, and the future of its caller."""

    kind: str
    request_id: str | None
    payload: bytes
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Place]"


def deliver(batch: Sequence[Waiting], outcomes: Sequence[Place | SpoolError]) -> None:
    """Wake the callers: one call into each event loop for the whole batch, since each such call writes to a pipe."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Place], Place | SpoolError]]]
    by_loop = defaultdict(list)
    for waiting, outcome in zip(batch, outcomes, strict=True):
        by_loop[waiting.loop].append((waiting.future, outcome))
    for loop, pairs in by_loop.items():
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, pairs)


def _settle(pairs: Sequence[tuple["asyncio.Future[Place]", Place | SpoolError]]) -> None:
    for future, outcome in pairs:
        # A caller who went away has cancelled his future; his row is written all the same.
        if future.done():
            continue
        if isinstance(outcome, SpoolError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
