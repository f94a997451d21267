"""What retention keeps, and for how long."""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.assistant.schema import Retention
from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance.needed import needed
from llmops_core.release.registry import Releases
from tests.llmops_core.release.test_manifest import manifest

RUN = Provenance("test")
Later = Callable[[float], datetime]


def test_a_release_stays_while_the_index_of_a_moment_at_which_it_served_can_be_asked_for(
    lakehouse: Lakehouse, assistant: Assistant, later: Later
) -> None:
    registry = Releases(lakehouse, "helper")
    first, second = (
        registry.create(manifest(index), author="me", message="", provenance=RUN)[0].release_id
        for index in ("i1", "i2")
    )
    events = lakehouse.table("helper", "release_events")
    ids = [uuid7(), uuid7()]
    moves = [(ids[0], later(0), first, None, None), (ids[1], later(8), second, first, ids[0])]
    names = ("event_id", "at", "release_id", "previous_release_id", "previous_event_id")
    rows = [
        {**dict.fromkeys(events.spec.frame_schema.names()), **dict(zip(names, move, strict=True)), "channel": "prod"}
        for move in moves
    ]
    events.append(pl.DataFrame(rows, schema=events.spec.frame_schema), RUN)

    def kept(day: float, log_days: int, index_days: int) -> bool:
        retention = Retention(log_days=log_days, index_days=index_days)
        changed = assistant.model_copy(update={"retention": retention})
        found = needed(lakehouse, changed, {}, later(day))
        assert second in found.releases
        return first in found.releases and "i1" in found.index_versions and 2**62 + 1 in found.snapshots

    assert kept(12, log_days=2, index_days=10)
    assert kept(12, log_days=10, index_days=2)
    assert not kept(12, log_days=2, index_days=2)
    assert not kept(19, log_days=2, index_days=10)
