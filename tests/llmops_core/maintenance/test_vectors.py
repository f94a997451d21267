"""Vectors go when no snapshot of the chunks has their chunk any more, or with the index of their embedder."""

from collections.abc import Callable, Sequence
from datetime import datetime

import polars as pl
import pytest

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.models.revisions import embedder_revision
from llmops_core.settings import Settings
from llmops_core.vectors.index import IndexSettings, VectorIndex

RUN = Provenance("test")
Maintain = Callable[[datetime], Maintained]
Later = Callable[[float], datetime]
TEN = "abcdefghij"


@pytest.fixture
def revision(settings: Settings, assistant: Assistant) -> str:
    """The revision of the assistant's embedder."""
    return embedder_revision(settings, assistant.embedder.model)


@pytest.fixture
def vectors(lakehouse: Lakehouse) -> LakeTable:
    return lakehouse.table("helper", "index_embeddings")


def set_chunks(lakehouse: Lakehouse, ids: Sequence[str]) -> None:
    table = lakehouse.table("helper", "corpus_chunks")
    rows = [{**dict.fromkeys(table.spec.frame_schema.names()), "chunk_id": chunk_id} for chunk_id in ids]
    table.overwrite(pl.DataFrame(rows, schema=table.spec.frame_schema), RUN)


def embed(vectors: LakeTable, revision: str, ids: Sequence[str]) -> None:
    rows = [{"embedder_revision": revision, "chunk_id": chunk_id, "vector": [1.0, 2.0]} for chunk_id in ids]
    vectors.append(pl.DataFrame(rows, schema=vectors.spec.frame_schema), RUN)


def embedded(vectors: LakeTable) -> str:
    return "".join(sorted(vectors.read()["chunk_id"]))


def test_the_vectors_of_a_chunk_go_with_the_last_snapshot_that_has_it(
    lakehouse: Lakehouse, vectors: LakeTable, revision: str, maintained: Maintain, later: Later
) -> None:
    set_chunks(lakehouse, TEN)
    embed(vectors, revision, TEN)
    set_chunks(lakehouse, "abc")
    version = vectors.snapshot_id()
    assert maintained(later(1.9)).vectors == 0
    assert embedded(vectors) == TEN
    assert maintained(later(2.1)).vectors == 7
    assert embedded(vectors) == "abc"
    assert vectors.read()["vector"].to_list() == [[1.0, 2.0]] * 3
    assert vectors.snapshot_id() == version, "no asset may take it for new data"
    assert maintained(later(2.2)).vectors == 0


def test_a_dry_run_tells_them_and_deletes_none(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, vectors: LakeTable, revision: str, later: Later
) -> None:
    set_chunks(lakehouse, TEN)
    embed(vectors, revision, TEN)
    set_chunks(lakehouse, "abc")
    assert maintain(lakehouse, settings, assistant, {}, RUN, now=later(3), dry_run=True).vectors == 7
    assert embedded(vectors) == TEN


def test_a_snapshot_of_the_chunks_that_stays_keeps_its_vectors(
    lakehouse: Lakehouse, settings: Settings, assistant: Assistant, vectors: LakeTable, revision: str, later: Later
) -> None:
    set_chunks(lakehouse, TEN)
    recorded = lakehouse.table("helper", "corpus_chunks").snapshot_id()
    embed(vectors, revision, TEN)
    set_chunks(lakehouse, "abc")
    maintain(lakehouse, settings, assistant, {str(recorded): "corpus/chunks"}, RUN, now=later(3))
    assert embedded(vectors) == TEN


def test_a_file_with_few_dead_rows_is_left_as_it_is(
    lakehouse: Lakehouse, vectors: LakeTable, revision: str, maintained: Maintain, later: Later
) -> None:
    set_chunks(lakehouse, TEN)
    embed(vectors, revision, TEN)
    embed(vectors, revision, "k")
    set_chunks(lakehouse, TEN[1:])
    assert maintained(later(3)).vectors == 1, "k was never a chunk, and is its file's only row"
    assert embedded(vectors) == TEN


def test_the_vectors_of_a_former_embedder_go_with_its_index(
    lakehouse: Lakehouse, settings: Settings, vectors: LakeTable, revision: str, maintained: Maintain, later: Later
) -> None:
    set_chunks(lakehouse, "ab")
    embed(vectors, revision, "ab")
    embed(vectors, "former-1", "ab")
    row = {"chunk_id": "a", "document_id": "d", "title": "t", "heading_path": ["h"], "text": "x", "char_start": 0}
    frame = pl.DataFrame(
        [{**row, "char_end": 1, "vector": [1.0, 2.0]}], schema_overrides={"vector": pl.List(pl.Float32)}
    )
    VectorIndex(f"{settings.lancedb}/helper", "former-1").build([frame], "old", IndexSettings())
    maintained(later(40))
    assert vectors.read()["embedder_revision"].unique().sort().to_list() == sorted([revision, "former-1"])
    done = maintained(later(41))
    assert (done.vectors, done.index_tables) == (2, ("former-1",))
    assert vectors.read()["embedder_revision"].to_list() == [revision] * 2
