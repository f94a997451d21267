"""Tables as people look at them: snapshots, rows at a moment, differences."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from llmops_core.errors import InvalidRequestError, NotFoundError
from llmops_core.lakehouse.dataset import diff, rows_at, snapshots
from llmops_core.lakehouse.history import expire
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance import compaction

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def documents(**texts: str) -> pl.DataFrame:
    schema = TABLES["corpus_documents"].frame_schema
    rows = [{**dict.fromkeys(schema.names()), "document_id": name, "text": text} for name, text in texts.items()]
    return pl.DataFrame(rows, schema=schema)


@pytest.fixture
def table(lakehouse: Lakehouse) -> LakeTable:
    """Three states: one document, a changed and a new one, one gone."""
    table = lakehouse.table("helper", "corpus_documents")
    table.overwrite(documents(a="first"), Provenance("run-1", {"corpus": "x"}))
    table.overwrite(documents(a="second", b="new"), Provenance("run-2"))
    table.overwrite(documents(b="new"), Provenance("run-3"))
    return table


def texts(frame: pl.LazyFrame) -> dict[str, str]:
    return dict(frame.select("document_id", "text").collect().iter_rows())


def test_snapshots_say_who_wrote_them_from_what_and_how_many_rows_there_are(table: LakeTable) -> None:
    found = [one for one in snapshots(table) if one.operation != "delete"]
    assert [(one.run_id, one.rows) for one in found] == [("run-3", 1), ("run-2", 2), ("run-1", 1)]
    assert found[-1].reads == {"corpus": "x"}
    assert all(one.code_version for one in found)
    assert found[0].at >= found[-1].at


def test_a_compaction_is_told_from_a_change(lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MANY", 2)
    table = lakehouse.table("helper", "corpus_documents")
    for name in "abc":
        table.append(documents(**{name: name}), Provenance("run"))
    loaded = table.load()
    assert compaction.rewrite(loaded, compaction.groups(loaded)[0], {})
    assert snapshots(table)[0].operation == "compaction"


def test_a_moment_is_a_snapshot_or_a_time(table: LakeTable) -> None:
    newest, *_, oldest = snapshots(table)
    assert texts(rows_at(table, oldest.snapshot)) == texts(rows_at(table, oldest.at.isoformat())) == {"a": "first"}
    assert texts(rows_at(table, newest.at.isoformat())) == texts(rows_at(table, None)) == {"b": "new"}
    assert texts(rows_at(table, "2001-01-01T00:00:00Z")) == {}
    with pytest.raises(InvalidRequestError, match="has no time zone"):
        rows_at(table, "2026-01-01T00:00:00")
    with pytest.raises(NotFoundError, match="no longer retained"):
        rows_at(table, "12345")


def test_what_is_no_longer_retained_is_not_taken_for_what_was_before_it(table: LakeTable) -> None:
    known = snapshots(table)[::-1]
    gone = [one for one in known if one.run_id == "run-2"]
    expire(table.load(), [int(one.snapshot) for one in gone])
    with pytest.raises(NotFoundError, match="The nearest moment that is") as error:
        rows_at(table, gone[-1].at.isoformat())
    kept = {one.snapshot for one in snapshots(table)}
    assert any(f"(snapshot {snapshot})" in str(error.value) for snapshot in kept)
    assert texts(rows_at(table, known[0].at.isoformat())) == {"a": "first"}


def test_two_moments_differ_by_key_and_column(table: LakeTable) -> None:
    states = {one.run_id: one.snapshot for one in snapshots(table)[::-1]}
    found = diff(table, states["run-1"] or "", states["run-2"])
    assert found.added["document_id"].to_list() == ["b"]
    assert found.removed.is_empty()
    assert found.changed.to_dicts() == [{"document_id": "a", "columns": ["text"]}]
    back = diff(table, states["run-2"] or "", None)
    assert (back.added.height, back.removed["document_id"].to_list(), back.changed.height) == (0, ["a"], 0)


def test_rows_that_are_lists_or_null_are_compared(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "evaluation_cases")

    def case(**values: Any) -> pl.DataFrame:
        row = {**dict.fromkeys(table.spec.frame_schema.names()), "case_id": "c", "answers": ["x"], **values}
        return pl.DataFrame([row], schema=table.spec.frame_schema)

    table.overwrite(case(), Provenance("1"))
    first = snapshots(table)[0].snapshot
    table.overwrite(case(), Provenance("2"))
    assert diff(table, first, None).changed.is_empty()
    table.overwrite(case(answers=["x", "y"], split="tune"), Provenance("3"))
    assert diff(table, first, None).changed["columns"].to_list() == [["answers", "split"]]


def test_a_log_tells_its_past_by_the_times_of_its_rows(lakehouse: Lakehouse) -> None:
    table = lakehouse.table("helper", "traffic_feedback")
    names = table.spec.frame_schema.names()
    rows = [{**dict.fromkeys(names), "feedback_id": f"f{day}", "at": NOW.replace(day=day)} for day in (1, 2, 3)]
    table.append(pl.DataFrame(rows, schema=table.spec.frame_schema), Provenance("run"))
    found = rows_at(table, "2026-01-02T12:00:00+00:00").select("feedback_id").collect()
    assert found["feedback_id"].to_list() == ["f1", "f2"]
    assert diff(table, "2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z").added["feedback_id"].to_list() == ["f2"]


def test_every_table_has_a_key_of_its_columns_and_those_of_rows_one_time() -> None:
    for spec in TABLES.values():
        assert spec.key, spec.name
        assert set(spec.key) <= set(spec.columns), spec.name
        if spec.past == "rows":
            assert len([kind for kind, _ in spec.columns.values() if kind == pl.Datetime("us", "UTC")]) == 1, spec.name
