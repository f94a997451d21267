"""Building: work in proportion to change, versions, bad rows."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import polars as pl
import pytest

from llmops_core.errors import ConfigError, EmptyCorpusError, InvalidRequestError, NotFoundError
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.indexes import LANGUAGES

FLAT = IndexSettings()


@pytest.fixture
def index(tmp_path: Path) -> VectorIndex:
    return VectorIndex(str(tmp_path / "lancedb"), "minilm-1a2b3c")


def test_only_what_changed_is_written(index: VectorIndex, make_row: Any, batches: Any) -> None:
    rows = [make_row(n) for n in range(100)]
    first = index.build(batches(rows), "v1", FLAT)
    assert (first.rows, first.added, first.deleted, first.kind) == (100, 100, 0, "flat")
    assert first.size_bytes > 0
    edited = [*rows[10:], make_row(500), {**rows[20], "chunk_id": "f" * 32, "char_start": 9}]
    edited[0] = {**edited[0], "char_start": 4}
    second = index.build(batches(edited), "v2", FLAT)
    assert (second.rows, second.added, second.deleted) == (92, 3, 10)
    hits = index.open("v2").full_text(edited[0]["text"], 92)
    assert next(hit for hit in hits if hit.chunk_id == edited[0]["chunk_id"]).char_start == 4


def test_a_version_that_exists_is_left_as_it_is(index: VectorIndex, make_row: Any, batches: Any) -> None:
    index.build(batches([make_row(1)]), "v1", FLAT)
    again = index.build(iter([]), "v1", FLAT)
    assert (again.rows, again.added, again.deleted) == (1, 0, 0)


def test_equal_rows_under_another_name_are_not_written_again(index: VectorIndex, make_row: Any, batches: Any) -> None:
    rows = [make_row(n) for n in range(20)]
    index.build(batches(rows), "v1", FLAT)
    assert index.build(batches(rows), "v2", FLAT).added == 0
    assert index.open("v2").dense(index.open("v1").vectors(1)[0], 3) == index.open("v1").dense(
        index.open("v1").vectors(1)[0], 3
    )


def test_another_language_makes_another_full_text_index(index: VectorIndex, make_row: Any, batches: Any) -> None:
    rows = [{**make_row(1), "text": "Die Häuser laufen"}, {**make_row(2), "text": "running cities"}]
    index.build(batches(rows), "english", FLAT)
    index.build(batches(rows), "german", IndexSettings("German"))
    index.build(batches(rows), "other", IndexSettings("Other"))
    assert [hit.chunk_id for hit in index.open("english").full_text("city", 5)] == [rows[1]["chunk_id"]]
    assert index.open("english").full_text("Haus", 5) == []
    assert [hit.chunk_id for hit in index.open("german").full_text("Haus", 5)] == [rows[0]["chunk_id"]]
    assert index.open("other").full_text("city", 5) == []
    assert [hit.chunk_id for hit in index.open("other").full_text("häuser", 5)] == [rows[0]["chunk_id"]]


def test_words_of_a_language_without_spaces_are_found(index: VectorIndex, make_row: Any, batches: Any) -> None:
    rows = [{**make_row(1), "text": "我喜欢北京的天气"}, {**make_row(2), "text": "今天下雨"}]
    index.build(batches(rows), "v", IndexSettings("Other"))
    assert [hit.chunk_id for hit in index.open("v").full_text("北京", 5)] == [rows[0]["chunk_id"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_indexes_and_searches(index: VectorIndex, make_row: Any, batches: Any, language: str) -> None:
    index.build(batches([{**make_row(1), "text": "vector привет αβγ"}]), "v", IndexSettings(language))
    assert len(index.open("v").full_text("VECTOR", 5)) == 1


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"'Klingon'.*Arabic, Danish.*Turkish, Other"):
        IndexSettings("Klingon")


def test_a_table_that_shrinks_below_the_limit_is_flat_again(index: VectorIndex, make_row: Any, batches: Any) -> None:
    settings = IndexSettings(ann_from_rows=50)
    rows = [make_row(n) for n in range(60)]
    assert index.build(batches(rows), "v1", settings).kind == "ivf_sq"
    assert index.build(batches(rows[:40]), "v2", settings).kind == "flat"
    assert index.build(batches(rows), "v3", settings).kind == "ivf_sq"
    assert (index.open("v1").kind, index.open("v2").kind, index.open("v3").kind) == ("ivf_sq", "flat", "ivf_sq")


def test_a_table_that_outgrew_its_centroids_is_trained_again(index: VectorIndex, make_row: Any, batches: Any) -> None:
    settings = IndexSettings(ann_from_rows=50)
    index.build(batches([make_row(n) for n in range(60)]), "v1", settings)
    index.build(batches([make_row(n) for n in range(90)]), "v2", settings)
    result = index.build(batches([make_row(n) for n in range(200)]), "v3", settings)
    reader = index.open("v3")
    assert (result.kind, reader.rows) == ("ivf_sq", 200)
    assert reader.dense(reader.vectors(1)[0], 5) == reader.exact(reader.vectors(1)[0], 5)


def test_many_small_edits_do_not_pile_up_files(index: VectorIndex, make_row: Any, batches: Any, tmp_path: Path) -> None:
    rows = [make_row(n) for n in range(30)]
    for edit in range(20):
        index.build(batches([*rows, make_row(100 + edit)]), f"v{edit}", FLAT)
    table = lancedb.connect(str(tmp_path / "lancedb")).open_table("minilm-1a2b3c")
    assert len(table.to_lance().get_fragments()) <= 17
    assert index.open("v3").rows == index.open("v19").rows == 31


def test_lancedb_opens_a_version_as_its_own_table(
    index: VectorIndex, make_row: Any, batches: Any, tmp_path: Path
) -> None:
    rows = [make_row(n) for n in range(10)]
    index.build(batches(rows), "v1", FLAT)
    table = lancedb.connect(str(tmp_path / "lancedb")).open_table("minilm-1a2b3c")
    table.checkout("v1")
    nearest = table.search(rows[3]["vector"]).distance_type("cosine").select(["chunk_id", "_distance"]).limit(1)
    assert nearest.to_list()[0]["chunk_id"] == rows[3]["chunk_id"]


def test_versions_come_oldest_first_and_can_be_forgotten(index: VectorIndex, make_row: Any, batches: Any) -> None:
    assert index.versions() == []
    index.build(batches([make_row(1)]), "b", FLAT)
    index.build(batches([make_row(1), make_row(2)]), "a", FLAT)
    assert index.versions() == ["b", "a"]
    index.delete_version("b")
    index.delete_version("b")
    assert index.versions() == ["a"]
    with pytest.raises(NotFoundError, match=r"no version b.*llmops build"):
        index.open("b")


def test_cleaning_frees_forgotten_versions_and_keeps_the_others(
    index: VectorIndex, make_row: Any, batches: Any, query_vector: Any
) -> None:
    for version in range(4):
        index.build(batches([make_row(n) for n in range(version * 40, version * 40 + 50)]), f"v{version}", FLAT)
    kept = index.open("v1")
    before = kept.dense(query_vector(1), 5)
    index.delete_version("v2")
    assert index.clean(timedelta(0)) > 0
    assert index.versions() == ["v0", "v1", "v3"]
    assert kept.dense(query_vector(1), 5) == before == index.open("v1").dense(query_vector(1), 5)
    assert index.open("v1").full_text("running", 5) == kept.full_text("running", 5)
    assert index.build(batches([make_row(7)]), "v4", FLAT).rows == 1


def test_cleaning_what_was_never_built_does_nothing(index: VectorIndex) -> None:
    assert index.clean() == 0


def test_nothing_to_index_is_said(index: VectorIndex, make_row: Any, batches: Any) -> None:
    with pytest.raises(EmptyCorpusError, match="not one chunk"):
        index.build(iter([]), "v1", FLAT)
    index.build(batches([make_row(1)]), "v1", FLAT)
    with pytest.raises(EmptyCorpusError, match="not one chunk"):
        index.build(iter([]), "v2", FLAT)
    assert index.open("v1").rows == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop("title"), "need the columns chunk_id"),
        (lambda frame: pl.concat([frame, frame]), "came twice"),
        (lambda frame: frame.with_columns(chunk_id=pl.lit(None, pl.String)), "without nulls"),
        (lambda frame: frame.with_columns(vector=pl.lit([0.5] * 3)), "does not have 16 numbers"),
        (lambda frame: frame.with_columns(vector=pl.lit([0.0] * 16)), "is zero"),
        (lambda frame: frame.with_columns(vector=pl.lit([float("nan")] * 16)), "not finite"),
        (lambda frame: frame.with_columns(vector=pl.lit(None, pl.List(pl.Float32))), "does not have 16 numbers"),
    ],
)
def test_bad_rows_are_refused_and_change_nothing(
    index: VectorIndex, make_row: Any, batches: Any, spoil: Any, message: str
) -> None:
    index.build(batches([make_row(n) for n in range(9)]), "v1", FLAT)
    bad = spoil(next(batches([make_row(n) for n in range(20, 30)])))
    with pytest.raises(InvalidRequestError, match=message):
        index.build(iter([next(batches([make_row(50)])), bad]), "v2", FLAT)
    assert index.versions() == ["v1"]
    assert index.build(batches([make_row(n) for n in range(9)]), "v2", FLAT).added == 0


def test_an_error_of_the_rows_arrives_as_it_was(index: VectorIndex, make_row: Any, batches: Any) -> None:
    class LakeAwayError(RuntimeError):
        pass

    def torn() -> Any:
        yield next(batches([make_row(1)]))
        raise LakeAwayError("gone")

    with pytest.raises(LakeAwayError):
        index.build(torn(), "v1", FLAT)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name"):
        VectorIndex(str(tmp_path), name)
    with pytest.raises(ConfigError, match="cannot name"):
        VectorIndex(str(tmp_path), "t").build(iter([]), name, FLAT)
