"""One LanceDB table an embedder revision, one tag an index version.

A build changes the table, makes its indexes, checks both, and only then tags: a version that can be opened is whole, and
what a killed build left is repaired by the next. Two builds of one table: in a folder the second waits for the first; on
an object store, which has no locks, one that meets another's commit gets `ConflictError` (sometimes both do) and no
version is made of mixed rows.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from llmops_core.errors import ConfigError, IndexCorruptError, NotFoundError
from llmops_core.vectors.changes import Changes, synchronise
from llmops_core.vectors.indexes import full_text_options, has_indexes, make_indexes
from llmops_core.vectors.reader import IndexReader
from llmops_core.vectors.storage import NAME, TableLocation, corrupt, readable, storage_options

if TYPE_CHECKING:
    from lance import LanceDataset

# Longer than a build takes and than a reader may hold a version that was deleted.
GRACE = timedelta(days=1)


@dataclass(frozen=True)
class IndexSettings:
    """What of an index can be set; raises `ConfigError` for an unknown language."""

    language: str = "English"
    """One of `indexes.LANGUAGES`: stemming and stop words of the full-text index."""
    ann_from_rows: int = 50_000
    """Rows from which vectors get an IVF_SQ index; below, comparing with all of them is about as fast."""

    def __post_init__(self) -> None:
        full_text_options(self.language)


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    version: str
    rows: int
    added: int
    """Rows that were written: new ones and changed ones."""
    deleted: int
    """Rows whose chunk is gone."""
    kind: str
    """`flat` or `ivf_sq`."""
    seconds: float
    size_bytes: int
    """Of the files that this version uses, many of them together with other versions."""


class VectorIndex:
    """The index of one assistant and embedder revision (`table`); `uri` is a folder or `s3://bucket/prefix`."""

    def __init__(self, uri: str, table: str) -> None:
        self._location = TableLocation(uri, table)

    def __str__(self) -> str:
        return str(self._location)

    def build(
        self, batches: Iterable[pl.DataFrame], version: str, settings: IndexSettings, *, fresh: bool = False
    ) -> BuildResult:
        """Make index version `version` of exactly the rows of `batches`; one that exists is left as it is.

        Batches have the columns `rows.COLUMNS` and `vector` (float32, L2-normalised or not, never zero); further columns
        are ignored. They are read once and never held together; chunk ids are unique over all of them. `fresh` repairs: it
        writes every row anew and moves the tag of an existing version, while versions that can still be read stay.
        Raises `EmptyCorpusError`, `InvalidRequestError` (bad rows), `ConflictError` (another build), `IndexCorruptError`.
        """
        if not re.fullmatch(NAME, version):
            raise ConfigError(f"{version!r} cannot name an index version: use letters, digits, '.', '_' and '-'.")
        started = time.perf_counter()
        with self._location.lock():
            dataset = self._open_to_write(fresh=fresh)
            if dataset is not None and not fresh and version in self._tagged(dataset):
                reader = self.open(version)
                changes = Changes(reader.rows, 0, 0, touched=False)
            else:
                dataset, changes = self._make(dataset, batches, settings, fresh=fresh)
                self._tag(dataset, version)
                reader = self.open(version)
        return BuildResult(
            version=version,
            rows=changes.rows,
            added=changes.added,
            deleted=changes.deleted,
            kind=reader.kind,
            seconds=time.perf_counter() - started,
            size_bytes=reader.size_bytes(),
        )

    def open(self, version: str) -> IndexReader:
        """Open a version for reading; it stays readable while later ones are built.

        Raises `NotFoundError` if there is no such version, `IndexCorruptError` if it cannot be read.
        """
        where = f"version {version} of {self._location}"
        with readable(where):
            reader = IndexReader(lambda: self._at(version), version, where)
        reader.probe()
        return reader

    def _at(self, version: str) -> "LanceDataset":
        dataset = self._location.open()
        if dataset is None and self._location.exists():
            raise corrupt(self._location, "it has no manifest")
        if dataset is None or version not in self._tagged(dataset):
            raise NotFoundError(
                f"There is no version {version} of {self._location}: it was never built, or retention let it go. llmops build"
                " makes the index of the present documents, and a release with it."
            )
        return dataset.checkout_version(version)

    def versions(self) -> list[str]:
        """All versions that can be opened, oldest first."""
        dataset = self._location.open()
        tagged = {} if dataset is None else self._tagged(dataset)
        return sorted(tagged, key=lambda version: (tagged[version], version))

    def built_at(self) -> dict[str, datetime]:
        """When each version that can be opened was finished."""
        dataset = self._location.open()
        if dataset is None:
            return {}
        times = _times(dataset)
        return {version: times[number] for version, number in self._tagged(dataset).items()}

    def changed_at(self) -> datetime | None:
        """When a build last changed the table, whether it got to its end or not; None if the table was never made."""
        dataset = self._location.open()
        return None if dataset is None else max(_times(dataset).values())

    def delete_version(self, version: str) -> None:
        """Forget a version, if there is one of this name; `clean` then frees what no other version needs.

        Who has it open can read on until then.
        """
        dataset = self._location.open()
        if dataset is not None and version in self._tagged(dataset):
            with readable(self._location):
                dataset.tags.delete(version)

    def clean(self, older_than: timedelta = GRACE) -> int:
        """Delete files that only steps of builds and forgotten versions older than this use; returns the bytes freed.

        Files that no Lance version names, which a killed build leaves, go after seven days.
        """
        dataset = self._location.open()
        if dataset is None:
            return 0
        with readable(self._location):
            # A limit of zero counts as none given.
            limit = max(older_than, timedelta(microseconds=1))
            statistics = dataset.cleanup_old_versions(older_than=limit, error_if_tagged_old_versions=False)
            return int(statistics.bytes_removed)

    def drop(self) -> None:
        """Delete the table with all its versions; who has one open loses it. Raises `IndexCorruptError`."""
        import lance

        with self._location.lock():
            with readable(self._location):
                lance.LanceDataset.drop(self._location.path, storage_options(), ignore_not_found=True)
            self._location.drop_lock()

    def _open_to_write(self, *, fresh: bool) -> "LanceDataset | None":
        try:
            dataset = self._location.open()
            if dataset is not None:
                self._tagged(dataset)
            elif self._location.exists():
                # Without a manifest nothing in it can be read, and its tags would name versions that are yet to come.
                self._location.drop()
            return dataset
        except IndexCorruptError:
            if not fresh:
                raise
            self._location.drop()
            return None

    def _make(
        self, dataset: "LanceDataset | None", batches: Iterable[pl.DataFrame], settings: IndexSettings, *, fresh: bool
    ) -> "tuple[LanceDataset, Changes]":
        # Only a tagged version is known to have indexes that fit its rows.
        finished = dataset is not None and dataset.version in self._tagged(dataset).values()
        dataset, changes = synchronise(self._location, dataset, batches, fresh=fresh)
        with readable(self._location):
            if changes.touched or not finished or not has_indexes(dataset, settings.language, settings.ann_from_rows):
                make_indexes(self._location, dataset, settings.language, settings.ann_from_rows)
        return dataset, changes

    def _tag(self, dataset: "LanceDataset", version: str) -> None:
        with readable(self._location):
            if version in self._tagged(dataset):
                dataset.tags.update(version, dataset.version)
            else:
                dataset.tags.create(version, dataset.version)

    def _tagged(self, dataset: "LanceDataset") -> dict[str, int]:
        """Index version → number of the Lance version."""
        with readable(self._location):
            return {name: int(tag["version"]) for name, tag in dataset.tags.list().items()}


def _times(dataset: "LanceDataset") -> dict[int, datetime]:
    """Number of each Lance version that is there → when it was committed."""
    # Lance gives the time of this machine's zone, without the zone.
    return {int(version["version"]): version["timestamp"].astimezone(UTC) for version in dataset.versions()}
