"""An append to a log table after 500 commits beside one after 10, in one run, with maintenance and without.

`make bench` prints all three. The 500 commits stand for an ingest every five minutes: maintenance runs after each 288, a
day's worth, and the two hours for which a log table keeps snapshots last as long as 24 commits do here. Appends to be
compared are made in turns, so that a busy machine slows both.
"""

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from llmops_core.lakehouse import history
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.maintain import maintain
from llmops_core.settings import load_settings
from tests.benchmark.conftest import Report
from tests.running_gateway import write_assistant

RUN = Provenance("benchmark")
FEW, MANY = 10, 500
COMMITS_A_DAY = 24 * 60 // 5
COMMITS_KEPT = 2 * 60 // 5
ROWS = 100
TABLES_WITH_FEW = 5
MEASURED = 25


def test_an_append_after_500_commits_beside_one_after_10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    settings = load_settings(home=tmp_path / "home")
    assistant = write_assistant(tmp_path / "notes")
    lakehouse = Lakehouse.open(settings)
    few = [_table(lakehouse, f"few{number}") for number in range(TABLES_WITH_FEW)]
    pace_ms = statistics.median(seconds for table in few for seconds in _commit(table, FEW)) * 1000
    monkeypatch.setattr(history, "NAMED_MS", COMMITS_KEPT * pace_ms)
    many, unmaintained = _table(lakehouse, "many"), _table(lakehouse, "unmaintained")
    for commit in range(1, MANY + 1):
        _commit(many, 1)
        if commit % COMMITS_A_DAY == 0:
            now = datetime.now(UTC) + timedelta(days=commit // COMMITS_A_DAY)
            maintain(lakehouse, settings, assistant.model_copy(update={"name": "many"}), {}, RUN, now=now)
    _commit(unmaintained, MANY, forgets=False)

    turns = [
        (_commit(few[turn % TABLES_WITH_FEW], 1)[0], _commit(many, 1)[0], _commit(unmaintained, 1, forgets=False)[0])
        for turn in range(MEASURED)
    ]
    after_few, after_many, without = (statistics.median(seconds) * 1000 for seconds in zip(*turns, strict=True))
    report(
        f"append after {MANY} commits with maintenance",
        f"{after_many:.1f} ms",
        f"{after_few:.1f} ms after {FEW}",
        after_many / after_few,
        "at most 1.5",
    )
    report(
        f"append after {MANY} commits without maintenance",
        f"{without:.1f} ms",
        f"{after_few:.1f} ms after {FEW}",
        without / after_few,
        "none stated",
    )
    assert many.read().height == (MANY + MEASURED) * ROWS


def _table(lakehouse: Lakehouse, assistant: str) -> LakeTable:
    lakehouse.prepare(assistant)
    return lakehouse.table(assistant, "traffic_feedback")


def _commit(table: LakeTable, times: int, *, forgets: bool = True) -> list[float]:
    """Append so often; the seconds that each took. Without `forgets`, the table keeps all its snapshots."""
    schema = table.spec.frame_schema
    row = {**dict.fromkeys(schema.names()), "feedback_id": "f", "comment": "a comment", "at": datetime.now(UTC)}
    frame = pl.DataFrame([row] * ROWS, schema=schema)
    seconds = []
    with pytest.MonkeyPatch.context() as patch:
        if not forgets:
            patch.setattr(history, "MOST_SNAPSHOTS", 10 * MANY)
        for number in range(times):
            started = time.perf_counter()
            table.append_after(frame, RUN, table.snapshot_id(), {"spool.gateway": str(number)})
            seconds.append(time.perf_counter() - started)
    return seconds
