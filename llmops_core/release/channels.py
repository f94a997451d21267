"""Channels: pointers to releases, kept as the fold of `release_events`.

Moving a channel is a compare-and-set on that table: load, check that the channel's last event is the expected one, append
without retry. Of two movers one wins; the other sees `ConflictError` and what happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import ConflictError, InvalidRequestError
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


def fold(events: pl.DataFrame) -> dict[str, Pointer]:
    """The channels after these events: for each the last one, in the order in which they were appended."""
    last = {row["channel"]: row for row in events.iter_rows(named=True)}
    return {
        channel: Pointer(row["release_id"], row["event_id"], row["at"], row["experiment"])
        for channel, row in last.items()
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

    def move(
        self,
        channel: str,
        release_id: str,
        *,
        action: str,
        author: str,
        reason: str,
        provenance: Provenance,
        expected: Mapping[str, Pointer] | None = None,
        report_id: str | None = None,
        gate: Mapping[str, Any] | None = None,
    ) -> Pointer:
        """Point `channel` to `release_id`; `expected` is the state that the decision was made on.

        `report_id` and `gate` are kept as the evidence. Moving to where it already points does nothing. Raises `ConflictError`
        if the channel was moved meanwhile.
        """
        if channel not in CHANNELS:
            raise InvalidRequestError(f"There is no channel {channel!r}. Channels are: {', '.join(CHANNELS)}")
        seen = (self.state() if expected is None else expected).get(channel)

        def decide(rows: pl.DataFrame) -> tuple[Pointer, dict[str, Any] | None]:
            current = fold(_in_order(rows)).get(channel)
            if (current and current.event_id) != (seen and seen.event_id):
                raise ConflictError(
                    f"{self._assistant}: channel {channel} was moved meanwhile, to {current and current.release_id}."
                    " Look at `llmops release list` and decide again."
                )
            if current and current.release_id == release_id:
                return current, None
            pointer = Pointer(release_id, uuid7(), datetime.now(UTC))
            event = {
                "event_id": pointer.event_id,
                "at": pointer.at,
                "channel": channel,
                "action": action,
                "release_id": release_id,
                "previous_release_id": current.release_id if current else None,
                "previous_event_id": current.event_id if current else None,
                "author": author,
                "reason": reason,
                "report_id": report_id,
                "gate": None if gate is None else canonical_json(gate),
                "experiment": None,
            }
            return pointer, event

        return self._table.append_decided(decide, provenance)


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
