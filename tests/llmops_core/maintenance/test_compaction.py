"""Merging changes files and nothing else, whoever writes meanwhile."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from llmops_core.errors import ConflictError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance import compaction
from llmops_core.maintenance.compaction import MANY, groups, rewrite

RUN = Provenance("test")
Feedback = Callable[..., pl.DataFrame]


@pytest.fixture
def table(lakehouse: Lakehouse, feedback: Feedback) -> LakeTable:
    """`MANY` files of one row each, and a mark."""
    table = lakehouse.table("helper", "traffic_feedback")
    for number in range(MANY):
        frame = feedback(lakehouse, str(number), at=datetime.now(UTC))
        table.append_after(frame, RUN, table.snapshot_id(), {"spool.g": str(number)})
    return table


def number_of_files(table: LakeTable) -> int:
    return len(list(table.load().scan().plan_files()))


def compact(table: LakeTable) -> list[bool]:
    loaded = table.load()
    return [rewrite(loaded, group, RUN.properties()) for group in groups(loaded)]


def test_small_files_become_one_and_rows_marks_and_data_version_stay(table: LakeTable) -> None:
    before, version, mark = table.scan().collect(), table.snapshot_id(), table.property("spool.g")
    assert compact(table) == [True]
    assert number_of_files(table) == 1
    assert table.scan().collect().sort("feedback_id").equals(before.sort("feedback_id"))
    assert (table.snapshot_id(), table.property("spool.g")) == (version, mark)
    assert table.append(before.select(table.spec.frame_schema.names()).head(0), RUN) == version
    assert compact(table) == []


def test_compacted_twice_the_data_version_is_still_the_same(
    table: LakeTable, lakehouse: Lakehouse, feedback: Feedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = table.snapshot_id()
    monkeypatch.setattr(compaction, "GROUP", 8 * groups(table.load())[0][0].file_size_in_bytes)
    assert len(compact(table)) >= 2
    assert table.snapshot_id() == version
    newer = table.append(feedback(lakehouse, "new", at=datetime.now(UTC)), RUN)
    assert table.snapshot_id() == newer != version


def test_older_rows_come_into_older_files(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "GROUP", 8 * groups(table.load())[0][0].file_size_in_bytes)
    first = groups(table.load())[0]
    paths = [file.file_path for file in first]
    by_age = [s.summary["added-data-files"] for s in table.load().snapshots() if s.summary]
    assert len(by_age) == MANY
    oldest = table.load().snapshots()[0].snapshot_id
    (file,) = table.load().scan(snapshot_id=oldest).plan_files()
    assert paths[0] == file.file.file_path


def test_a_snapshot_from_before_reads_as_it_was(table: LakeTable) -> None:
    first = table.load().snapshots()[0].snapshot_id
    compact(table)
    assert table.read(first)["feedback_id"].to_list() == ["0"]


def test_partitions_stay_apart(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "index_embeddings")
    for number in range(MANY):
        rows = [{"embedder_revision": r, "chunk_id": f"{number}", "vector": [0.5, float(number)]} for r in ("a", "b")]
        table.append(pl.DataFrame(rows, schema=table.spec.frame_schema), RUN)
    before = table.read().sort("embedder_revision", "chunk_id")
    assert compact(table) == [True, True]
    assert number_of_files(table) == 2
    assert table.read().sort("embedder_revision", "chunk_id").equals(before)


def test_old_files_without_a_new_column_are_merged_with_newer_ones(lakehouse: Lakehouse, table: LakeTable) -> None:
    with table.load().update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("comment")
    lakehouse.prepare("helper")
    assert compact(table) == [True]
    assert table.read()["comment"].to_list() == [None] * MANY


def test_a_row_that_comes_while_files_are_rewritten_is_kept(
    lakehouse: Lakehouse, table: LakeTable, feedback: Feedback
) -> None:
    loaded = table.load()
    (group,) = groups(loaded)
    frame = feedback(lakehouse, "meanwhile", at=datetime.now(UTC))
    table.append_after(frame, RUN, table.snapshot_id(), {"spool.g": "99"})
    rewrite(loaded, group, RUN.properties())
    assert sorted(table.read()["feedback_id"]) == sorted([*map(str, range(MANY)), "meanwhile"])
    assert table.property("spool.g") == "99"


def test_rows_that_are_deleted_while_files_are_rewritten_stay_deleted(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "corpus_rejected")
    row: dict[str, Any] = {"uri": "u", "reason": "r", "rejected_at": datetime.now(UTC)}
    for number in range(MANY):
        table.append(pl.DataFrame([{"source": str(number), **row}], schema=table.spec.frame_schema), RUN)
    loaded = table.load()
    (group,) = groups(loaded)
    table.replace("source", ["3"], [], RUN, table.snapshot_id())
    assert rewrite(loaded, group, RUN.properties()) is False
    assert "3" not in set(table.read()["source"])
    assert table.read().height == MANY - 1


def test_compaction_while_rows_are_made_is_no_conflict(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "corpus_documents")

    def document(name: str) -> pl.DataFrame:
        row = {"document_id": name, "changed_at": datetime.now(UTC)}
        return pl.DataFrame([row], schema=table.spec.frame_schema)

    for number in range(MANY):
        table.append(document(str(number)), RUN)

    def frames() -> Iterator[pl.DataFrame]:
        yield document("new")
        assert compact(table) == [True]

    table.replace("document_id", ["3"], frames(), RUN, table.snapshot_id())
    assert sorted(table.read()["document_id"]) == sorted({*map(str, range(MANY)), "new"} - {"3"})


def test_writers_and_compaction_at_once_lose_no_row_and_double_none(
    lakehouse: Lakehouse, table: LakeTable, feedback: Feedback
) -> None:
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(40):
                frame = feedback(lakehouse, f"w{number}", at=datetime.now(UTC))
                while True:
                    try:
                        table.append_after(frame, RUN, table.snapshot_id(), {"spool.w": str(number)})
                        break
                    except ConflictError:
                        continue
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        compact(table)
    writer.join()
    compact(table)
    assert sorted(table.read()["feedback_id"]) == sorted([*map(str, range(MANY)), *(f"w{n}" for n in range(40))])
    assert table.property("spool.w") == "39"
    assert number_of_files(table) < MANY


def test_an_append_that_began_before_a_rewrite_lands_on_top_of_it(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "index_embeddings")

    def vector(number: int) -> pl.DataFrame:
        row = {"embedder_revision": "a", "chunk_id": str(number), "vector": [float(number)]}
        return pl.DataFrame([row], schema=table.spec.frame_schema)

    for number in range(MANY):
        table.append(vector(number), RUN)
    written = table.scan().collect().to_arrow().cast(table.spec.arrow_schema)
    with table.load().transaction() as transaction:
        assert compact(table) == [True]
        transaction.append(written.slice(0, 1))
    assert table.read().height == MANY + 1
    assert number_of_files(table) == 2
