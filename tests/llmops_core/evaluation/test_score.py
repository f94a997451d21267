"""What is stored of an evaluation: answers as they come, and a report once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from llmops_core.evaluation.report import make_report
from llmops_core.evaluation.run import RESULT_SCHEMA
from llmops_core.evaluation.score import store_report
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.settings import load_settings


@pytest.fixture
def reports(tmp_path: Path) -> LakeTable:
    lakehouse = Lakehouse.open(load_settings(home=tmp_path / "home"))
    lakehouse.prepare("notes")
    return lakehouse.table("notes", "evaluation_reports")


def test_two_that_store_the_same_report_at_once_store_one(reports: LakeTable) -> None:
    row = {"case_id": "one", "case_hash": "h", "split": "tune", "recall_at_1": 1.0}
    report = make_report("release", pl.DataFrame([row], schema=RESULT_SCHEMA))
    both_have_read = threading.Barrier(2)

    class Slow(LakeTable):
        """Waits between its first reading and its writing until the other has read as well."""

        reads = 0

        def read(self, snapshot_id: int | None = None) -> pl.DataFrame:
            rows = super().read(snapshot_id)
            self.reads += 1
            if self.reads == 1:
                both_have_read.wait(60)
            return rows

    tables = [Slow(reports._catalog, "notes", reports.spec) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        stored = set(threads.map(lambda table: store_report(table, report, Provenance("test")), tables))
    assert sorted(table.reads for table in tables) == [1, 2]
    assert stored == set(reports.read()["report_id"])
    assert reports.read().height == report.frame().height
    assert store_report(reports, report, Provenance("test")) in stored
    assert reports.read().height == report.frame().height
