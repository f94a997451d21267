"""What was decided about releases: who, when, why, and on which evidence."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Entry:
    """One event of `release_events`."""

    at: datetime
    release_id: str | None
    channel: str | None
    """None: a decision that moves nothing."""
    action: str
    author: str
    reason: str
    report_id: str | None
    gate: dict[str, Any] | None
    """What the gate said then (see gate.py)."""

    @property
    def outcome(self) -> str | None:
        """What the gate said, in a word."""
        return self.gate.get("outcome") if self.gate else None


def history(events: pl.DataFrame, release_id: str | None = None) -> list[Entry]:
    """All events, or those of one release, oldest first; the end of a canary is one of each release that was in it."""
    rows = events
    if release_id is not None:
        own = pl.col("release_id") == release_id
        experiments = events.filter(own)["experiment"].drop_nulls()
        rows = events.filter(own | (pl.col("release_id").is_null() & pl.col("experiment").is_in(experiments.implode())))
    return [
        Entry(
            at=row["at"],
            release_id=row["release_id"],
            channel=row["channel"],
            action=row["action"],
            author=row["author"],
            reason=row["reason"],
            report_id=row["report_id"],
            gate=json.loads(row["gate"]) if row["gate"] else None,
        )
        for row in rows.sort("at", maintain_order=True).iter_rows(named=True)
    ]
