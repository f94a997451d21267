"""Channels: pointers to releases, kept as the fold of `release_events`.

Moving a channel is a compare-and-set on that table: load, check that the channel's last event is the expected one, append
without retry. Of two movers one wins; the other sees `ConflictError` and what happened.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import ConflictError
from llmops_core.ids import canonical_json, uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance

CHANNELS = ("dev", "staging", "prod")
"""Those that people move; `canary` beside them is prod's second pointer (see canary.py)."""
CANARY = "canary"


@dataclass(frozen=True)
class Pointer:
    """Where a channel points, and the event that put it there."""

    release_id: str
    event_id: str
    at: datetime
    experiment: str | None = None
    """Of the canary: the event that began it."""
    plan: Mapping[str, Any] | None = None
    """Of the canary: how it was to go when it began (see canary.py)."""


@dataclass(frozen=True)
class Step:
    """A channel, and where it points from now on; None: to nothing."""

    channel: str | None
    """None: a decision about the release (approve, reject), which moves nothing."""
    release_id: str | None
    action: str
    experiment: str | None = None
    """Of the canary; None: this step begins one."""
    plan: Mapping[str, Any] | None = None
    decided: Pointer | None = None
    """Of a step that was decided before it could be written: its event. However often it is taken, it is written once."""


def fold(events: pl.DataFrame) -> dict[str, Pointer]:
    """The channels after these events: for each the last one, in the order in which they were appended."""
    return {
        channel: Pointer(
            row["release_id"], row["event_id"], row["at"], row["experiment"], json.loads(row["plan"] or "null")
        )
        for channel, row in _last(events).items()
        if channel is not None and row["release_id"] is not None
    }


class Channels:
    """The channels of one assistant."""

    def __init__(self, lakehouse: Lakehouse, assistant: str) -> None:
        self._table = lakehouse.table(assistant, "release_events")
        self._assistant = assistant

    def events(self, snapshot_id: int | None = None) -> pl.DataFrame:
        """All events, oldest first (ids are UUIDv7, and each event names the one before it on its channel)."""
        return _in_order(self._table.read(snapshot_id))

    def state(self) -> dict[str, Pointer]:
        """Where each channel points now; a channel without a release is absent."""
        return fold(self.events())

    def take(
        self,
        steps: Sequence[Step],
        *,
        author: str,
        reason: str,
        provenance: Provenance,
        expected: Mapping[str, Pointer],
        report_id: str | None = None,
        gate: Mapping[str, Any] | None = None,
        check: Callable[[pl.DataFrame], None] | None = None,
    ) -> dict[str, Pointer]:
        """Take steps on channels that differ, all in one commit or none; returns the state after it.

        `expected` is the state that the mover decided on, `report_id` and `gate` are kept as the evidence. `check` gets the
        events that the commit follows, and raises if one of them speaks against it: others may have decided something since the
        mover looked. Raises `ConflictError` if one of these channels is no longer where it is `expected`. A step to where its
        channel points already does nothing.
        """

        def decide(rows: pl.DataFrame) -> tuple[dict[str, Pointer], list[dict[str, Any]]]:
            present = _in_order(rows)
            if check:
                check(present)
            state, last, written = fold(present), _last(present), set(present["event_id"])
            events: list[dict[str, Any]] = []
            for step in steps:
                if step.decided and step.decided.event_id in written:
                    continue
                current, seen = state.get(step.channel or ""), expected.get(step.channel or "")
                if (current and current.event_id) != (seen and seen.event_id):
                    raise ConflictError(
                        f"{self._assistant}: channel {step.channel} was moved meanwhile, to"
                        f" {current.release_id if current else 'nothing'}. Look at `llmops release list` and decide again."
                    )
                if (current and current.release_id) == step.release_id:
                    continue
                event_id = step.decided.event_id if step.decided else uuid7()
                experiment = (step.experiment or event_id) if step.channel == CANARY else None
                events.append(
                    {
                        "event_id": event_id,
                        "at": step.decided.at if step.decided else datetime.now(UTC),
                        "channel": step.channel,
                        "action": step.action,
                        "release_id": step.release_id,
                        "previous_release_id": current.release_id if current else None,
                        # Also of a channel that points to nothing: its events are one chain.
                        "previous_event_id": last[step.channel]["event_id"] if step.channel in last else None,
                        "author": author,
                        "reason": reason,
                        "report_id": report_id,
                        "gate": None if gate is None else canonical_json(gate),
                        "experiment": experiment,
                        "plan": None if step.plan is None else canonical_json(step.plan),
                    }
                )
            return fold(pl.concat([present, pl.DataFrame(events, schema=present.schema)])), events

        return self._table.append_decided(decide, provenance)


def _last(events: pl.DataFrame) -> dict[str | None, dict[str, Any]]:
    """Channel → its last event."""
    return {row["channel"]: row for row in events.iter_rows(named=True)}


def _in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Order events so that each comes after the one it names as its predecessor.

    Clocks of two movers may disagree, the chain of `previous_event_id` does not.
    """
    rows = {row["event_id"]: row for row in events.iter_rows(named=True)}
    following: dict[tuple[str, str | None], str] = {
        (row["channel"], row["previous_event_id"]): event_id for event_id, row in rows.items()
    }
    ordered: list[str] = []
    for channel in {row["channel"]: None for row in rows.values()}:
        event_id = following.get((channel, None))
        while event_id is not None:
            ordered.append(event_id)
            event_id = following.get((channel, event_id))
    return pl.DataFrame([rows[event_id] for event_id in ordered], schema=events.schema)
