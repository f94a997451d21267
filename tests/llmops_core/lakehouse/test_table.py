"""Reads at snapshots, writes with provenance, compare-and-set."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import pytest

from llmops_core.errors import ConflictError, NotFoundError
from llmops_core.lakehouse import lakehouse as module
from llmops_core.lakehouse.history import expire
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.compaction import rewrite
from llmops_core.version import code_version

RUN = Provenance("run-1", {"corpus_documents": 7})


def documents(*ids: str, text: str = "t") -> pl.DataFrame:
    rows = [
        {
            "document_id": i,
            "document_hash": text,
            "title": i,
            "text": text,
            "uri": i,
            "media_type": "text/plain",
            "source": "s",
            "changed_at": datetime.now(UTC),
        }
        for i in ids
    ]
    return pl.DataFrame(rows)


def prompt() -> pl.DataFrame:
    row = {"name": "p", "version": 1, "hash": "h", "text": "t", "author": "a", "message": "m"}
    return pl.DataFrame([{**row, "created_at": datetime.now(UTC)}])


@pytest.fixture
def table(lakehouse: Lakehouse) -> LakeTable:
    return lakehouse.table("helper", "corpus_documents")


def ids(table: LakeTable, snapshot: int | None = None) -> list[str]:
    return sorted(table.read(snapshot)["document_id"])


def test_an_older_snapshot_reads_as_it_was(table: LakeTable) -> None:
    first = table.append(documents("a", "b"), RUN)
    second = table.replace("document_id", ["a"], [documents("c")], RUN, first)
    assert (ids(table, first), ids(table, second), ids(table)) == (["a", "b"], ["b", "c"], ["b", "c"])


@pytest.mark.parametrize("gone", [[], ["a"]], ids=["new rows", "changed rows"])
def test_what_was_worked_out_from_an_older_state_is_not_written(table: LakeTable, gone: list[str]) -> None:
    first = table.append(documents("a"), RUN)
    table.append(documents("b"), RUN)
    with pytest.raises(ConflictError):
        table.replace("document_id", gone, [documents("c")], RUN, first)
    assert ids(table) == ["a", "b"]


def test_rows_and_snapshots_say_who_wrote_them_from_what(table: LakeTable) -> None:
    table.append(documents("a"), RUN)
    row = table.scan().collect().row(0, named=True)
    assert (row["run_id"], row["code_version"]) == ("run-1", code_version())
    snapshot = table.load().current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary["llmops.run_id"] == "run-1"
    assert snapshot.summary["llmops.read.corpus_documents"] == "7"


def test_writing_nothing_makes_no_snapshot(table: LakeTable) -> None:
    first = table.append(documents("a"), RUN)
    assert table.append(documents("a").head(0), RUN) == first
    assert table.snapshot_id() == first


def test_a_table_that_was_never_written_reads_as_empty(table: LakeTable) -> None:
    assert table.snapshot_id() is None
    assert table.read().is_empty()
    assert table.read().columns == table.spec.frame_schema.names()


def test_a_snapshot_that_is_gone_says_so(table: LakeTable) -> None:
    table.append(documents("a"), RUN)
    with pytest.raises(NotFoundError, match="no longer retained"):
        table.read(12345)


def test_a_table_that_does_not_exist_names_the_command_that_makes_it(lakehouse: Lakehouse) -> None:
    with pytest.raises(NotFoundError, match="llmops build"):
        lakehouse.table("nobody", "corpus_documents").read()
    with pytest.raises(NotFoundError, match="corpus_documents, corpus_rejected"):
        lakehouse.table("helper", "corpus_nonsense")


def test_preparing_twice_changes_nothing(lakehouse: Lakehouse) -> None:
    assert lakehouse.prepare("helper") == []


def test_a_column_that_an_old_table_lacks_is_added(lakehouse: Lakehouse, table: LakeTable) -> None:
    table.append(documents("a"), RUN)
    with table.load().update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("uri")
    assert lakehouse.prepare("helper") == ["helper.corpus_documents: column uri"]
    assert table.read()["uri"].to_list() == [None]


def test_a_snapshot_from_before_a_column_was_added_reads_with_nulls_in_it(
    lakehouse: Lakehouse, table: LakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table.append(documents("a"), RUN)
    columns = {**table.spec.columns, "language": (pl.String, "Language")}
    newer = dataclasses.replace(table.spec, columns=columns)
    monkeypatch.setattr(module, "TABLES", {newer.name: newer})
    lakehouse.prepare("helper")
    upgraded = lakehouse.table("helper", "corpus_documents")
    upgraded.append(documents("b").with_columns(language=pl.lit("en")), RUN)
    assert upgraded.read(first).select("document_id", "language").rows() == [("a", None)]
    assert sorted(upgraded.read().select("document_id", "language").rows()) == [("a", None), ("b", "en")]


def test_rows_and_marks_are_one_commit(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "prompts_versions")
    first = table.append_after(prompt(), RUN, None, {"spool.g1": "4"})
    assert (table.property("spool.g1"), table.read().height) == ("4", 1)
    with pytest.raises(ConflictError):
        table.append_after(prompt(), RUN, None, {"spool.g1": "5"})
    assert (table.property("spool.g1"), table.snapshot_id()) == ("4", first)


def test_a_mark_without_rows_is_not_set_on_rows_that_came_meanwhile(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lakehouse.table("helper", "prompts_versions")
    loaded = table.load()
    table.append(prompt(), RUN)
    monkeypatch.setattr(table, "load", lambda: loaded)
    with pytest.raises(ConflictError):
        table.append_after(prompt().head(0), RUN, None, {"spool.g1": "4"})
    assert lakehouse.table("helper", "prompts_versions").property("spool.g1") is None


def test_of_many_movers_of_one_snapshot_one_wins(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "prompts_versions")

    def move(_: int) -> bool:
        try:
            lakehouse.table("helper", "prompts_versions").append_after(prompt(), RUN, None)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(move, range(8)))
    assert sum(won) == 1
    assert table.read().height == 1


def test_a_decision_is_made_anew_when_what_it_was_to_be_made_on_expired_after_a_compaction(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lakehouse.table("helper", "prompts_versions")
    original = table.append(prompt(), RUN)
    assert original
    compacted = table.load()
    files = [task.file for task in compacted.scan().plan_files()]
    assert rewrite(compacted, files, {})
    assert table.snapshot_id() == original
    really = table.snapshot_id

    def then_it_expires() -> int | None:
        snapshot = really()
        expire(table.load(), [original])
        return snapshot

    monkeypatch.setattr(table, "snapshot_id", then_it_expires)
    row = prompt().row(0, named=True)
    assert table.append_decided(lambda present: (present.height, row), RUN) == 1
    assert table.read(really()).height == 2
