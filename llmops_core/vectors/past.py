"""The index of any release, and of any moment, as long as retention keeps it.

LanceDB holds the version as a tag; where it does not (any more), the version is made anew from the Iceberg snapshots that its
row names, and gives the same ids and scores. What the index was at a moment is told by the channels: the version of the
release that a channel pointed to then. So a version that came back counts for each time that it served, and one that was
built and never served counts for none.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from llmops_core.errors import IndexCorruptError, NotFoundError
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.manifest import Manifest, Release
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_core.vectors.index import VectorIndex
from llmops_core.vectors.sync import restore_version

# What an index is made of; the documents beside them are for lineage.
SOURCES = ("corpus_chunks", "index_embeddings")


@dataclass(frozen=True)
class PastIndex:
    """The index of a release, there to be searched."""

    release: Release
    made: bool
    """Whether it was made anew from the lakehouse; else LanceDB had it."""


def index_of_release(lakehouse: Lakehouse, settings: Settings, release: Release) -> PastIndex:
    """Have LanceDB hold the index of a release; raises `NotFoundError` if retention let go of it."""
    manifest = release.manifest
    index = index_of(settings, manifest)
    try:
        index.open(manifest.index.version)
    except (NotFoundError, IndexCorruptError):
        with mapped_errors(f"the lakehouse of {manifest.assistant}"):
            restore_version(lakehouse, manifest.assistant, index, _recorded(lakehouse, release))
        return PastIndex(release, made=True)
    return PastIndex(release, made=False)


def index_as_of(lakehouse: Lakehouse, settings: Settings, assistant: str, channel: str, at: datetime) -> PastIndex:
    """Have LanceDB hold the index that a channel served at a moment.

    Raises `NotFoundError` if nothing served then, or what did is no longer retained; it names the nearest moment that is.
    """
    release = Releases(lakehouse, assistant).get(channel, at)
    try:
        return index_of_release(lakehouse, settings, release)
    except NotFoundError as error:
        raise NotFoundError(
            f"{assistant}: the index of {at.isoformat()}, of release {release.number} on {channel}, is no longer retained:"
            f" {error} {_nearest(lakehouse, settings, assistant, channel, at)}"
        ) from error


def index_of(settings: Settings, manifest: Manifest) -> VectorIndex:
    """The LanceDB table of a release's embedder."""
    return VectorIndex(f"{settings.lancedb}/{manifest.assistant}", manifest.embedder.revision)


def _recorded(lakehouse: Lakehouse, release: Release) -> Mapping[str, Any]:
    version = release.manifest.index.version
    rows = lakehouse.table(release.manifest.assistant, "index_vector_index").read()
    found = rows.filter(pl.col("index_version") == version)
    if found.is_empty():
        raise NotFoundError(
            f"Index version {version} of release {release.number} is no longer recorded (see retention in assistant.yaml)."
        )
    return found.row(0, named=True)


def _nearest(lakehouse: Lakehouse, settings: Settings, assistant: str, channel: str, at: datetime) -> str:
    """Which moment is retained, as near to `at` as can be."""
    known = {release.release_id: release for release in Releases(lakehouse, assistant).all()}
    retained = _Retained(lakehouse, settings, assistant)
    moments: list[tuple[timedelta, datetime, Release]] = []
    for begin, end, release_id in _times(lakehouse, assistant, channel):
        release = known.get(release_id)
        if release and retained(release):
            nearest = min(max(at, begin), end)
            moments.append((abs(nearest - at), nearest, release))
    if not moments:
        return f"Nothing that was ever on {channel} is."
    _, nearest, release = min(moments, key=lambda moment: moment[:2])
    return f"The nearest moment that is: {nearest.isoformat()} (release {release.number})."


def _times(lakehouse: Lakehouse, assistant: str, channel: str) -> Iterator[tuple[datetime, datetime, str]]:
    """From when until when a channel pointed to which release."""
    events = Releases(lakehouse, assistant).channels.events().filter(pl.col("channel") == channel).rows(named=True)
    # The last moment before the next event, as exact as events are.
    ends = [event["at"] - timedelta(microseconds=1) for event in events[1:]] + [datetime.now(UTC)]
    for event, end in zip(events, ends, strict=True):
        if event["release_id"]:
            yield event["at"], end, event["release_id"]


class _Retained:
    """Whether the index of a release is in LanceDB or can be made again."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, assistant: str) -> None:
        self._settings = settings
        rows = lakehouse.table(assistant, "index_vector_index").read()
        self._recorded = {row["index_version"]: json.loads(row["snapshots"]) for row in rows.iter_rows(named=True)}
        tables = (lakehouse.table(assistant, name).load() for name in SOURCES)
        self._snapshots = {snapshot.snapshot_id for table in tables for snapshot in table.snapshots()}
        self._tags: dict[str, list[str]] = {}

    def __call__(self, release: Release) -> bool:
        manifest = release.manifest
        snapshots = self._recorded.get(manifest.index.version)
        if snapshots and all(snapshots[name] in self._snapshots for name in SOURCES):
            return True
        revision = manifest.embedder.revision
        if revision not in self._tags:
            try:
                self._tags[revision] = index_of(self._settings, manifest).versions()
            except IndexCorruptError:
                self._tags[revision] = []
        return manifest.index.version in self._tags[revision]
