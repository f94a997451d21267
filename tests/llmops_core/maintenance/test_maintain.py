"""Maintenance of tables: what goes, what stays, and that kills and company do no harm."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from llmops_core.assistant import Assistant
from llmops_core.errors import ConflictError, NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.settings import Settings
from llmops_core.traffic.ingest import mark_name

RUN = Provenance("test")
Maintain = Callable[[datetime], Maintained]
Later = Callable[[float], datetime]
Feedback = Callable[..., pl.DataFrame]
Files = Callable[[Settings], dict[str, int]]

# Maintains as `llmops maintain` does, and dies at the named step as kill -9 would have it.
KILLED = """
import os, signal, sys
from datetime import datetime
from unittest import mock
from pathlib import Path
import pyarrow.fs
from llmops_core.assistant import load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance import maintain, tables
from llmops_core.maintenance.notes import Notes
from llmops_core.settings import load_settings

home, folder, now, step = sys.argv[1:]

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

after = {"rewrite": tables.rewrite, "delete rows": LakeTable.delete, "expire": tables.expire, "delete files": tables.delete}

def die_after(*args, **kwargs):
    after[step](*args, **kwargs)
    die()

settings = load_settings(home=Path(home))
targets = {
    "rewrite": (tables, "rewrite", die_after),
    "delete rows": (LakeTable, "delete", die_after),
    "expire": (tables, "expire", die_after),
    "delete files": (tables, "delete", die_after),
    "notes": (Notes, "save", die),
    "segments": (maintain, "apply_segments", die),
}
owner, name, replacement = targets[step]
with mock.patch.object(owner, name, replacement):
    maintain.maintain(
        Lakehouse.open(settings), settings, load_assistant(Path(folder)), {}, Provenance("killed"),
        now=datetime.fromisoformat(now),
    )
"""


@pytest.fixture
def table(lakehouse: Lakehouse, feedback: Feedback, later: Later) -> LakeTable:
    """Rows of today and of a month later, a file each, and a mark."""
    table = lakehouse.table("helper", "traffic_feedback")
    for number in range(20):
        frame = feedback(lakehouse, f"old{number}", at=later(0))
        table.append_after(frame, RUN, table.snapshot_id(), {mark_name("g"): str(number)})
    table.append(feedback(lakehouse, "new", "newer", at=later(42)), RUN)
    return table


def documents(lakehouse: Lakehouse, texts: dict[str, str]) -> int:
    """Make these the documents; returns the snapshot."""
    table = lakehouse.table("helper", "corpus_documents")
    rows = [{**dict.fromkeys(table.spec.frame_schema.names()), "document_id": i, "text": t} for i, t in texts.items()]
    snapshot = table.overwrite(pl.DataFrame(rows, schema=table.spec.frame_schema), RUN)
    assert snapshot
    return snapshot


def referred_files(lakehouse: Lakehouse) -> int:
    from llmops_core.lakehouse.schemas import TABLES
    from llmops_core.maintenance.unreferenced import _referred

    return sum(len(set(_referred(lakehouse.table("helper", name).load()))) for name in TABLES)


def test_log_rows_go_after_log_days_and_the_marks_stay(table: LakeTable, maintained: Maintain, later: Later) -> None:
    assert maintained(later(1.9)).tables["traffic_feedback"].rows == 0
    assert table.read().height == 22
    assert maintained(later(2.1)).tables["traffic_feedback"].rows == 20
    assert sorted(table.read()["feedback_id"]) == ["new", "newer"]
    assert table.property(mark_name("g")) == "19"


def test_snapshots_are_old_when_they_ceased_to_be_current_and_recorded_ones_stay(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, later: Later
) -> None:
    table = lakehouse.table("helper", "corpus_documents")
    first, recorded, last = (documents(lakehouse, {"a": text}) for text in ("one", "two", "three"))
    seen = {str(recorded): "corpus/documents", "not-a-number": "prompts/versions"}
    early = maintain(lakehouse, settings, assistant, seen, RUN, now=later(1.9))
    assert early.tables["corpus_documents"].snapshots == 0
    assert table.read(first)["text"].to_list() == ["one"]
    done = maintain(lakehouse, settings, assistant, seen, RUN, now=later(2.1))
    assert done.kept == {f"corpus_documents {recorded}": "recorded by corpus/documents"}
    with pytest.raises(NotFoundError):
        table.read(first)
    assert [table.read(s)["text"].to_list() for s in (recorded, last)] == [["two"], ["three"]]


def test_a_moment_within_index_days_can_be_asked_for_although_its_snapshot_is_older(
    lakehouse: Lakehouse, settings: Settings, maintained: Maintain, later: Later
) -> None:
    table = lakehouse.table("helper", "corpus_documents")
    first = documents(lakehouse, {"a": "one"})
    maintained(later(40))
    documents(lakehouse, {"a": "two"})
    # Snapshots are of now, so that the clock has to go back.
    (settings.lakehouse / "warehouse" / "_maintenance" / "helper.json").unlink()
    assert not maintained(later(1)).doubt
    assert table.read(first)["text"].to_list() == ["one"]


def test_after_three_maintenances_the_disk_holds_what_tables_refer_to_and_nothing_else(
    lakehouse: Lakehouse, settings: Settings, table: LakeTable, maintained: Maintain, later: Later, files: Files
) -> None:
    for text in ("one", "two", "three"):
        documents(lakehouse, {"a": text})
    before = len(files(settings))
    for day in (40, 41, 42, 43):
        maintained(later(day))
    assert len(files(settings)) == referred_files(lakehouse) < before
    assert sorted(table.read()["feedback_id"]) == ["new", "newer"]
    # Snapshots of before are gone; the last ones are those of the latest maintenances.
    assert len(lakehouse.table("helper", "corpus_documents").load().snapshots()) == 1


def test_a_reader_that_began_before_is_not_broken(
    lakehouse: Lakehouse, table: LakeTable, maintained: Maintain, later: Later
) -> None:
    documents(lakehouse, {"a": "one"})
    lazy = table.scan()
    old = lakehouse.table("helper", "corpus_documents").scan()
    documents(lakehouse, {"a": "two"})
    maintained(later(40))
    maintained(later(40.5))
    assert lazy.collect().height == 22
    assert old.collect()["text"].to_list() == ["one"]


def test_a_dry_run_changes_nothing_and_says_what_the_real_run_does(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    table: LakeTable,
    maintained: Maintain,
    later: Later,
    files: Files,
) -> None:
    documents(lakehouse, {"a": "one"})
    documents(lakehouse, {"a": "two"})
    work = 0
    for day in (0, 40, 41, 42):
        before = files(settings)
        plan = maintain(lakehouse, settings, assistant, {}, RUN, dry_run=True, now=later(day))
        assert files(settings) == before
        done = maintained(later(day))
        assert {**plan.to_dict(), "dry_run": False} == done.to_dict()
        assert plan.markdown().replace("would go", "went") == done.markdown()
        work += sum(t.files + t.rows + t.snapshots + t.merged_files for t in done.tables.values())
    assert work > 40


@pytest.mark.parametrize("step", ["rewrite", "delete rows", "expire", "delete files", "notes", "segments"])
def test_after_a_kill_at_any_step_the_next_maintenance_does_the_rest(
    lakehouse: Lakehouse,
    settings: Settings,
    assistant: Assistant,
    table: LakeTable,
    maintained: Maintain,
    later: Later,
    files: Files,
    step: str,
) -> None:
    documents(lakehouse, {"a": "one"})
    documents(lakehouse, {"a": "two"})
    killed = [sys.executable, "-c", KILLED, str(settings.home), str(assistant.folder), later(40).isoformat(), step]
    ended = subprocess.run(killed, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert ended.returncode == -signal.SIGKILL
    assert {"new", "newer"} <= set(table.read()["feedback_id"])
    for day in (40, 41, 42, 43):
        maintained(later(day))
    assert sorted(table.read()["feedback_id"]) == ["new", "newer"]
    assert table.property(mark_name("g")) == "19"
    assert lakehouse.table("helper", "corpus_documents").read()["text"].to_list() == ["two"]
    assert len(files(settings)) == referred_files(lakehouse)


def test_a_second_maintenance_is_refused_with_the_reason_and_a_dry_run_is_not(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, maintained: Maintain, later: Later
) -> None:
    maintained(later(0))
    with FileLock(settings.home / "maintenance" / "helper.lock"):
        with pytest.raises(ConflictError, match="another maintenance is under way"):
            maintained(later(0))
        maintain(lakehouse, settings, assistant, {}, RUN, dry_run=True, now=later(0))
    maintained(later(0))


def test_rows_that_are_written_during_maintenance_are_all_there(
    lakehouse: Lakehouse, table: LakeTable, feedback: Feedback, maintained: Maintain, later: Later
) -> None:
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(30):
                frame = feedback(lakehouse, f"w{number}", at=later(60))
                while True:
                    try:
                        table.append_after(frame, RUN, table.snapshot_id(), {mark_name("w"): str(number)})
                        break
                    except ConflictError:
                        continue
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        with suppress(ConflictError):  # the writer leaves hardly a gap; what was not done is done later
            maintained(later(50))
    writer.join()
    maintained(later(50))
    assert sorted(table.read()["feedback_id"]) == sorted(f"w{number}" for number in range(30))
    assert (table.property(mark_name("w")), table.property(mark_name("g"))) == ("29", "19")


def test_a_clock_that_leapt_ahead_costs_no_row_no_snapshot_and_no_grace_however_often_it_is_run(
    lakehouse: Lakehouse,
    settings: Settings,
    table: LakeTable,
    maintained: Maintain,
    later: Later,
    files: Files,
) -> None:
    first = documents(lakehouse, {"a": "one"})
    documents(lakehouse, {"a": "two"})
    maintained(later(0))
    before = files(settings)
    for day in (5000, 5000.1, 5000.2):
        leapt = maintained(later(day))
        assert leapt.doubt
        assert "Nothing went" in leapt.markdown()
    assert not maintained(later(0.5)).doubt
    assert table.read().height == 22
    assert lakehouse.table("helper", "corpus_documents").read(first).height == 1
    assert before.keys() <= files(settings).keys()


def test_a_file_that_was_found_while_the_clock_was_back_has_its_whole_grace_when_it_is_put_right(
    settings: Settings, lakehouse: Lakehouse, maintained: Maintain, later: Later
) -> None:
    maintained(later(0))
    uncommitted = settings.lakehouse / "warehouse" / "helper" / "corpus_documents" / "data" / "of-a-writer.parquet"
    uncommitted.parent.mkdir(parents=True, exist_ok=True)
    uncommitted.write_bytes(b"rows")
    for day in (-1, 0.9, 0.91):
        maintained(later(day))
    assert uncommitted.exists()
    maintained(later(1.9))
    assert not uncommitted.exists()


def test_a_clock_that_went_back_deletes_nothing(
    lakehouse: Lakehouse, table: LakeTable, maintained: Maintain, later: Later
) -> None:
    documents(lakehouse, {"a": "one"})
    documents(lakehouse, {"a": "two"})
    for day in (-5000, -4999.5, 0, -5000):
        done = maintained(later(day))
        assert not any(work.rows or work.snapshots or work.files for work in done.tables.values())
    assert table.read().height == 22


def test_a_recorded_snapshot_of_the_log_goes_when_it_is_older_than_the_log_and_with_it_the_rows_files(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, table: LakeTable, later: Later, files: Files
) -> None:
    recorded = table.snapshot_id()
    seen = {str(recorded): "traffic/feedback"}
    held = {name for name in files(settings) if name.startswith("helper/traffic_feedback/data/")}
    assert recorded
    maintain(lakehouse, settings, assistant, seen, RUN, now=later(1.9))
    assert table.read(recorded).height == 22
    for day in (2.5, 3.5, 4.5):
        maintain(lakehouse, settings, assistant, seen, RUN, now=later(day))
    with pytest.raises(NotFoundError):
        table.read(recorded)
    assert not held & files(settings).keys()
    assert sorted(table.read()["feedback_id"]) == ["new", "newer"]
