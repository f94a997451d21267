"""The index follows the lakehouse; what is damaged or gone is noticed, said and made anew."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.manifest import IndexPin
from llmops_core.release.registry import Releases
from llmops_core.vectors import sync as sync_module
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.sync import IndexSync, sync_index
from tests.llmops_core.release.test_manifest import manifest
from tests.moving import move

RUN = Provenance("run")
Write = Callable[[range], None]


@pytest.fixture
def write(lakehouse: Lakehouse, make_row: Any) -> Write:
    """Append the chunks of these numbers, and a vector for each."""

    def rows(numbers: range) -> None:
        made = pl.DataFrame([make_row(n) | {"document_hash": "h", "cutting": "c"} for n in numbers])
        chunks, vectors = (lakehouse.table("helper", name) for name in ("corpus_chunks", "index_embeddings"))
        chunks.append(made.select(chunks.spec.frame_schema.names()), RUN)
        vectors.append(made.select("chunk_id", "vector", embedder_revision=pl.lit("rev")), RUN)

    return rows


@pytest.fixture
def index(tmp_path: Path) -> VectorIndex:
    return VectorIndex(str(tmp_path / "lancedb"), "rev")


def sync(lakehouse: Lakehouse, index: VectorIndex, log: Callable[[str], object] = lambda line: None) -> IndexSync:
    snapshots = {}
    for name in ("corpus_chunks", "index_embeddings"):
        snapshot = lakehouse.table("helper", name).snapshot_id()
        assert snapshot is not None
        snapshots[name] = snapshot
    return sync_index(lakehouse, "helper", index, "rev", IndexSettings(), snapshots, RUN, log)


def tear(table: Path, pattern: str) -> None:
    for file in table.glob(pattern):
        os.truncate(file, file.stat().st_size // 2)


def empty(table: Path) -> None:
    shutil.rmtree(table)
    table.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "folder missing": shutil.rmtree,
    "folder empty": empty,
    "a data file missing": lambda table: min(table.glob("data/*")).unlink(),
    "a data file truncated": lambda table: tear(table, "data/*"),
    "manifests missing": lambda table: shutil.rmtree(table / "_versions"),
    "manifests truncated": lambda table: tear(table, "_versions/*"),
    "indexes missing": lambda table: shutil.rmtree(table / "_indices"),
    "indexes truncated": lambda table: tear(table, "_indices/*/*"),
}


@pytest.mark.parametrize("changed", [False, True], ids=["same content", "new content"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_gone_is_said_and_made_anew(
    lakehouse: Lakehouse,
    index: VectorIndex,
    write: Write,
    tmp_path: Path,
    query_vector: Any,
    damage: str,
    changed: bool,
) -> None:
    write(range(40))
    first = sync(lakehouse, index)
    DAMAGES[damage](tmp_path / "lancedb" / "rev.lance")
    if changed:
        write(range(40, 50))
    said: list[str] = []
    done = sync(lakehouse, index, said.append)
    if changed and damage.startswith("indexes"):  # They are made anew with every change.
        assert (said, done.damage) == ([], "")
    else:
        assert str(tmp_path / "lancedb" / "rev.lance") in done.damage
        assert said == [done.damage]
        assert done.added == done.rows
    assert (done.version == first.version) is not changed
    assert len(index.open(done.version).dense(query_vector(0), 100)) == (50 if changed else 40)
    again = sync(lakehouse, index, said.append)
    assert (again.version, again.added, again.damage) == (done.version, 0, "")
    assert said == ([done.damage] if done.damage else [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_version_on_a_channel_comes_back_with_the_newest(
    lakehouse: Lakehouse, index: VectorIndex, write: Write, tmp_path: Path, query_vector: Any, damage: str
) -> None:
    def found(version: str) -> list[Any]:
        reader = index.open(version)
        return [reader.dense(query_vector(0), 100), reader.full_text("running word1", 100)]

    write(range(40))
    first = sync(lakehouse, index)
    write(range(40, 50))
    second = sync(lakehouse, index)
    _put_on_prod(lakehouse, first.version)
    before = [found(first.version), found(second.version)]
    DAMAGES[damage](tmp_path / "lancedb" / "rev.lance")
    assert sync(lakehouse, index).damage
    assert [found(first.version), found(second.version)] == before


def test_a_version_on_a_channel_comes_back_though_the_newest_is_whole(
    lakehouse: Lakehouse, index: VectorIndex, write: Write
) -> None:
    versions = []
    for start in (0, 10, 20):
        write(range(start, start + 10))
        versions.append(sync(lakehouse, index).version)
    _put_on_prod(lakehouse, versions[1])
    for version in versions[:2]:
        index.delete_version(version)
    done = sync(lakehouse, index)
    assert (done.added, versions[1] in done.damage) == (0, True)
    assert set(index.versions()) == set(versions[1:])
    assert index.open(versions[1]).rows == 20


@pytest.mark.parametrize("lost", ["snapshots", "files"])
def test_an_old_version_that_cannot_come_back_holds_nothing_up(
    lakehouse: Lakehouse, index: VectorIndex, write: Write, lost: str
) -> None:
    write(range(10))
    old = sync(lakehouse, index).version
    _put_on_prod(lakehouse, old)
    if lost == "snapshots":
        rows = lakehouse.table("helper", "index_vector_index")
        pinned = rows.read().with_columns(snapshots=pl.lit('{"corpus_chunks": 1, "index_embeddings": 1}'))
        rows.overwrite(pinned.select(rows.spec.frame_schema.names()), RUN)
    index.delete_version(old)
    chunks = lakehouse.table("helper", "corpus_chunks")
    there = set(Path(chunks.load().location().removeprefix("file://"), "data").rglob("*.parquet"))
    chunks.overwrite(chunks.read().select(chunks.spec.frame_schema.names()), RUN)
    if lost == "files":
        for file in there:
            file.unlink()
    write(range(10, 20))
    done = sync(lakehouse, index)
    assert f"Version {old} is on a channel and cannot be made anew" in done.damage
    assert index.versions() == [done.version]


def _put_on_prod(lakehouse: Lakehouse, version: str) -> None:
    pinned = manifest().model_copy(update={"assistant": "helper", "index": IndexPin(version=version, snapshots={})})
    releases = Releases(lakehouse, "helper")
    release, _ = releases.create(pinned, author="me", message="", provenance=RUN)
    move(releases.channels, "prod", release.release_id)


def test_a_whole_index_is_not_made_anew(lakehouse: Lakehouse, index: VectorIndex, write: Write) -> None:
    write(range(40))
    assert (sync(lakehouse, index).added, sync(lakehouse, index).added) == (40, 0)
    write(range(40, 45))
    done = sync(lakehouse, index, lambda line: pytest.fail(line))
    assert (done.rows, done.added, done.damage) == (45, 5, "")


def test_texts_and_vectors_are_joined_some_at_a_time_without_loss(
    lakehouse: Lakehouse, index: VectorIndex, write: Write, make_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(0, 40, 8):
        write(range(start, start + 8))
    vectors = lakehouse.table("helper", "index_embeddings")
    vectors.append(vectors.read(), RUN)  # Racing runs have embedded everything twice.
    monkeypatch.setattr(sync_module, "CHUNKS_PER_PASS", 15)
    monkeypatch.setattr(sync_module, "ROWS_PER_BATCH", 7)
    done = sync(lakehouse, index)
    assert done.rows == 40
    reader = index.open(done.version)
    for number in (0, 17, 39):
        hit = reader.dense(pl.Series(make_row(number)["vector"], dtype=pl.Float32).to_numpy(), 1)[0]
        assert hit.text == make_row(number)["text"]
        assert hit.score == pytest.approx(1)
