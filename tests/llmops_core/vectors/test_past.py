"""The index of a release or moment comes back from the lakehouse, or it is said what is gone and what is nearest."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_core.errors import InvalidRequestError, NotFoundError, PermanentError
from llmops_core.lakehouse.history import expire
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.manifest import IndexPin, Release
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.vectors.index import IndexSettings
from llmops_core.vectors.past import index_as_of, index_of, index_of_release
from llmops_core.vectors.sync import sync_index
from tests.llmops_core.release.test_manifest import manifest
from tests.llmops_core.vectors.conftest import row_of
from tests.moving import move

RUN = Provenance("run")
MILLISECOND = timedelta(milliseconds=1)
Build = Callable[[range], tuple[Release, datetime]]


@pytest.fixture
def build(lakehouse: Lakehouse, settings: Settings) -> Build:
    """Index these chunks beside the present ones, and put a release of it on prod: the release, and when it came there."""

    def built(numbers: range) -> tuple[Release, datetime]:
        rows = pl.DataFrame([row_of(n) | {"document_hash": "h", "cutting": "c"} for n in numbers])
        chunks, vectors = (lakehouse.table("helper", name) for name in ("corpus_chunks", "index_embeddings"))
        whole = manifest()
        revision = whole.embedder.revision
        chunks.append(rows.select(chunks.spec.frame_schema.names()), RUN)
        vectors.append(rows.select("chunk_id", "vector", embedder_revision=pl.lit(revision)), RUN)
        snapshots = {table.spec.name: table.snapshot_id() or 0 for table in (chunks, vectors)}
        index = index_of(settings, whole)
        done = sync_index(lakehouse, "helper", index, revision, IndexSettings(), snapshots, RUN, print)
        releases = Releases(lakehouse, "helper")
        pinned = whole.with_index(IndexPin(version=done.version, snapshots=done.snapshots))
        release, _ = releases.create(pinned, author="me", message="", provenance=RUN)
        pointer = move(releases.channels, "prod", release.release_id)
        return release, pointer.at

    return built


def found(settings: Settings, release: Release, query_vector: Any) -> list[Any]:
    reader = index_of(settings, release.manifest).open(release.manifest.index.version)
    return [reader.dense(query_vector(0), 100), reader.full_text("running word1", 100)]


def test_lancedb_is_asked_first_and_the_lakehouse_when_it_has_nothing(
    lakehouse: Lakehouse, settings: Settings, build: Build, query_vector: Any
) -> None:
    first, _ = build(range(20))
    build(range(20, 30))
    before = found(settings, first, query_vector)
    assert not index_of_release(lakehouse, settings, first).made
    index_of(settings, first.manifest).delete_version(first.manifest.index.version)
    assert index_of_release(lakehouse, settings, first).made
    assert found(settings, first, query_vector) == before
    shutil.rmtree(settings.lancedb)
    assert index_of_release(lakehouse, settings, first).made
    assert found(settings, first, query_vector) == before


def test_a_channel_tells_what_a_moment_had(lakehouse: Lakehouse, settings: Settings, build: Build) -> None:
    (first, since), (second, until) = build(range(20)), build(range(20, 30))
    for at, release in ((since, first), (until - MILLISECOND, first), (until, second)):
        assert index_as_of(lakehouse, settings, "helper", "prod", at).release == release
    with pytest.raises(NotFoundError, match=r"no release was on staging\. There was one on prod: --release prod"):
        index_as_of(lakehouse, settings, "helper", "staging", until)
    with pytest.raises(InvalidRequestError, match="is no channel"):
        index_as_of(lakehouse, settings, "helper", first.release_id, until)


def test_of_a_moment_that_is_gone_the_nearest_on_either_side_is_named(
    lakehouse: Lakehouse, settings: Settings, build: Build
) -> None:
    (first, _), (second, begin), (third, end) = build(range(20)), build(range(20, 30)), build(range(30, 40))
    expire(lakehouse.table("helper", "corpus_chunks").load(), [second.manifest.index.snapshots["corpus_chunks"]])
    # While LanceDB has it nothing is gone.
    assert index_as_of(lakehouse, settings, "helper", "prod", begin).release == second
    shutil.rmtree(settings.lancedb)
    before = begin - timedelta(microseconds=1)
    for at, nearest, release in ((begin, before, first), (end - 2 * MILLISECOND, end, third)):
        with pytest.raises(NotFoundError, match=f"of release {second.number} on prod, is no longer retained") as error:
            index_as_of(lakehouse, settings, "helper", "prod", at)
        assert f"The nearest moment that is: {nearest.isoformat()} (release {release.number})." in str(error.value)
        assert index_as_of(lakehouse, settings, "helper", "prod", nearest).release == release


def test_snapshots_that_hold_something_else_are_not_passed_off_as_the_version(
    lakehouse: Lakehouse, settings: Settings, build: Build
) -> None:
    (first, _), (second, _) = build(range(20)), build(range(20, 30))
    rows = lakehouse.table("helper", "index_vector_index")
    recorded = rows.read()
    snapshots = recorded.filter(pl.col("index_version") == second.manifest.index.version)["snapshots"][0]
    rows.overwrite(recorded.with_columns(snapshots=pl.lit(snapshots)), RUN)
    shutil.rmtree(Path(settings.lancedb))
    with pytest.raises(PermanentError, match=f"hold version {second.manifest.index.version}"):
        index_of_release(lakehouse, settings, first)
