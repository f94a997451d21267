"""What is stored of an evaluation: answers as they come, and a report once."""

import threading
from pathlib import Path

import polars as pl
import pytest

from llmops_core.errors import ConflictError
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
        """Waits between reading and writing until the other has read as well."""

        def read(self, snapshot_id: int | None = None) -> pl.DataFrame:
            rows = super().read(snapshot_id)
            both_have_read.wait(60)
            return rows

    lost: list[ConflictError] = []

    def store() -> None:
        try:
            store_report(Slow(reports._catalog, "notes", reports.spec), report, Provenance("test"))
        except ConflictError as error:
            lost.append(error)

    threads = [threading.Thread(target=store) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1
    assert reports.read().height == report.frame().height
    assert store_report(reports, report, Provenance("test")) == reports.read()["report_id"][0]
    assert reports.read().height == report.frame().height
