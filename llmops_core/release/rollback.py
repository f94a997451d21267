"""Rollback: a channel goes back to a release that it had before. It needs no evidence, since that release has served already.

The releases of a channel are a stack: what moves it forth puts a release on top, and a rollback takes off all that lies above
the one that it goes back to. So a second rollback goes further back and not forth again; what was taken back comes onto the
channel as any other release does, and never by itself.

A gateway that cannot reach the lakehouse decides on its copy of the same stack, and the history catches up (see `Waiting`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from llmops_core.errors import InvalidRequestError, NotFoundError
from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.canary import PROD, running
from llmops_core.release.channels import CANARY, CHANNELS, Pointer, Step, fold
from llmops_core.release.manifest import Release
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings

ACTION = "rollback"


@dataclass(frozen=True)
class Past:
    """What a channel was moved through."""

    stack: tuple[str, ...]
    """Release ids: the last is on the channel, the others are what it can go back to, the nearest last."""
    taken_back: frozenset[str]
    """Releases that rollbacks took off and that nobody has put on the channel since."""


def past(events: pl.DataFrame, channel: str) -> Past:
    """The past of a channel, by its events in the order in which they were appended."""
    stack: Sequence[str] = ()
    taken_back: set[str] = set()
    moves = events.filter((pl.col("channel") == channel) & pl.col("release_id").is_not_null())
    for action, release_id in moves.select("action", "release_id").iter_rows():
        before = stack
        stack = gone_back(stack, release_id) if action == ACTION else [*stack, release_id]
        taken_back = taken_back.union(before[len(stack) :]) - {release_id}
    return Past(tuple(stack), frozenset(taken_back))


def gone_back(stack: Sequence[str], release_id: str) -> Sequence[str]:
    """The stack after a rollback to a release: nothing lies above the nearest place where it stood."""
    places = [place for place, found in enumerate(stack) if found == release_id]
    if len(stack) - 1 in places:
        return stack
    return stack[: places[-1] + 1] if places else [*stack, release_id]


def target(stack: Sequence[str], wanted: str | None, channel: str) -> str:
    """The release that a rollback goes to: the one before, or the `wanted` one, which may also be on the channel already.

    Raises `NotFoundError` if there is none before, `InvalidRequestError` if the wanted one is not among those before.
    """
    if wanted is None:
        if len(stack) < 2:
            first = f"{stack[-1]} is the first that it had, or that is left" if stack else "it never had any"
            raise NotFoundError(f"{channel} has no release to go back to: {first}.")
        return stack[-2]
    if wanted not in stack:
        raise InvalidRequestError(
            f"Release {wanted} is not one that {channel} can go back to: it was never there, or was taken back. Put it there:"
            f" llmops release promote {wanted} {channel}"
        )
    return wanted


@dataclass(frozen=True)
class Rollback:
    """A rollback that was decided on a state of the channels."""

    channel: str
    release: Release
    left: Release
    """The release that was on the channel."""
    expected: dict[str, Pointer]


def decide(lakehouse: Lakehouse, settings: Settings, assistant: str, channel: str, to: str | None) -> Rollback:
    """Find the release to go back to; `to` names one in any of the ways of `Releases.get`.

    Raises `NotFoundError` or `InvalidRequestError` if there is none, or if its index is no longer kept.
    """
    if channel not in CHANNELS:
        raise InvalidRequestError(f"There is no channel {channel!r}. Channels are: {', '.join(CHANNELS)}")
    releases = Releases(lakehouse, assistant)
    events = releases.channels.events()
    stack = past(events, channel).stack
    found = releases.get(target(stack, releases.get(to).release_id if to else None, channel))
    if found.release_id != stack[-1]:
        _check_index(settings, assistant, found)
    return Rollback(channel, found, releases.get(stack[-1]), fold(events))


def apply(
    lakehouse: Lakehouse, assistant: str, rollback: Rollback, *, author: str, reason: str, provenance: Provenance
) -> None:
    """Move the channel, and end the canary beside prod; raises `ConflictError` if somebody moved either since it was decided."""
    Releases(lakehouse, assistant).channels.take(
        _steps(rollback.channel, rollback.release.release_id, rollback.expected),
        author=author,
        reason=reason,
        provenance=provenance,
        expected=rollback.expected,
    )


class Waiting(BaseModel):
    """A rollback that a gateway decided by itself: it holds there at once, and goes into the history when it can.

    It names the event that it followed. If another has followed that one meanwhile, the history wins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    at: datetime
    channel: str
    release_id: str
    previous_release_id: str
    previous_event_id: str
    author: str
    reason: str

    @classmethod
    def now(cls, channel: str, release_id: str, previous: Pointer, *, author: str, reason: str) -> "Waiting":
        """Decide it now."""
        return cls(
            event_id=uuid7(),
            at=datetime.now(UTC),
            channel=channel,
            release_id=release_id,
            previous_release_id=previous.release_id,
            previous_event_id=previous.event_id,
            author=author,
            reason=reason,
        )


def outcome(events: pl.DataFrame, waiting: Sequence[Waiting]) -> dict[str, Literal["recorded", "waiting", "overtaken"]]:
    """Event id → what the history says of it. Whether an append came through is told by this alone, and by no error of it.

    Of several of one channel each follows the one before.
    """
    known = set(events["event_id"])
    heads = {channel: pointer.event_id for channel, pointer in fold(events).items()}
    found: dict[str, Literal["recorded", "waiting", "overtaken"]] = {}
    for move in waiting:
        if move.event_id in known:
            found[move.event_id] = "recorded"
        elif heads.get(move.channel) == move.previous_event_id:
            found[move.event_id] = "waiting"
            heads[move.channel] = move.event_id
        else:
            found[move.event_id] = "overtaken"
    return found


def record(lakehouse: Lakehouse, assistant: str, move: Waiting) -> None:
    """Write it to the history, once however often this is called; raises `ConflictError` if the channel was moved."""
    decided = Pointer(move.release_id, move.event_id, move.at)
    channels = Releases(lakehouse, assistant).channels
    expected = channels.state()
    expected[move.channel] = Pointer(move.previous_release_id, move.previous_event_id, move.at)
    channels.take(
        _steps(move.channel, move.release_id, expected, decided),
        author=move.author,
        reason=move.reason,
        provenance=Provenance(f"rollback by {move.author}, decided without the lakehouse"),
        expected=expected,
    )


def _steps(channel: str, release_id: str, seen: Mapping[str, Pointer], decided: Pointer | None = None) -> list[Step]:
    """The rollback, and the end of the canary that is compared with what serves."""
    steps = [Step(channel, release_id, ACTION, decided=decided)]
    experiment = running(seen) if channel == PROD and seen[PROD].release_id != release_id else None
    if experiment:
        steps.append(Step(CANARY, None, "stopped", experiment.experiment, experiment.plan.to_dict()))
    return steps


def _check_index(settings: Settings, assistant: str, release: Release) -> None:
    """Raise `NotFoundError` if no gateway could load the release; the one that serves would go on serving."""
    from llmops_core.vectors.index import VectorIndex

    version = release.manifest.index.version
    index = VectorIndex(f"{settings.lancedb}/{assistant}", release.manifest.embedder.revision)
    if version not in index.versions():
        raise NotFoundError(
            f"Release {release.number} cannot serve: its index version {version} is no longer kept. Make it"
            f" again, and then go back: llmops index rebuild --release {release.number}"
        )
