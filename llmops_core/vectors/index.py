"""One LanceDB table an embedder revision, one tag an index version.

`build` brings the table to exactly the given rows with work in proportion to change, optimises, indexes, checks what came
out, and only then tags: a tag that exists is whole. A killed build leaves untagged Lance versions that the next one builds
on; of two builds at once, the one whose rows were mixed with the other's notices at the check and raises `ConflictError`.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from llmops_core.errors import ConfigError, ConflictError, IndexCorruptError, NotFoundError
from llmops_core.vectors.reader import IndexReader

if TYPE_CHECKING:
    from lancedb.table import LanceTable

log = logging.getLogger(__name__)

# Below this, scanning all vectors is as fast as an index and always exact.
ROWS_FOR_ANN = 50_000
# The size of an IVF partition that keeps both the search of centroids and of a partition short.
ROWS_PER_PARTITION = 1_000
# `optimize` raises once a tagged version is older than its limit for clean-up; versions are cleaned by maintenance instead.
NEVER = timedelta(days=36_500)
IDS_PER_DELETE = 2_000

# Languages that the stemmer of LanceDB's full-text index knows.
LANGUAGES = (
    "Arabic", "Danish", "Dutch", "English", "Finnish", "French", "German", "Greek", "Hungarian", "Italian",
    "Norwegian", "Portuguese", "Romanian", "Russian", "Spanish", "Swedish", "Tamil", "Turkish",
)  # fmt: skip

COLUMNS = ("chunk_id", "document_id", "title", "heading_path", "text", "char_start", "char_end")


@dataclass(frozen=True)
class IndexSettings:
    """What of an index can be set."""

    language: str = "English"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ConfigError(
                f"retrieval.language: {self.language!r} is not known to the full-text index."
                f" Allowed: {', '.join(LANGUAGES)}"
            )


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    version: str
    rows: int
    added: int
    """Rows that were written: new ones and changed ones."""
    deleted: int
    kind: str
    """`flat` or `ivf_sq`."""


class VectorIndex:
    """The index of one assistant and embedder revision; `uri` is a folder or `s3://bucket/path`."""

    def __init__(self, uri: str, table: str) -> None:
        self._uri = uri
        self._name = table

    def build(self, batches: Iterable[pl.DataFrame], version: str, settings: IndexSettings) -> BuildResult:
        """Make index version `version` of exactly the rows of `batches`; one that exists is left as it is.

        A batch has the columns of `COLUMNS` and `vector` (list of float32, L2-normalised); chunk ids are unique.
        """
        existing = self._open_or_none()
        if existing is not None and version in existing.tags.list():
            with self._mapped_errors():
                table = self._open_tag(existing, version)
                return BuildResult(version, table.count_rows(), 0, 0, _kind(table))
        with self._mapped_errors():
            return self._build(existing, batches, version, settings)

    def open(self, version: str) -> IndexReader:
        """Open a version for reading; it stays readable while later ones are built.

        Raises `NotFoundError` if there is no such version, `IndexCorruptError` if it cannot be read.
        """
        table = self._open_or_none()
        if table is None or version not in table.tags.list():
            raise NotFoundError(
                f"Index version {version} of {self._name} is not in {self._uri}. Build it: llmops build, or for an"
                f" older one: llmops index rebuild"
            )
        with self._mapped_errors():
            return IndexReader(self._open_tag(table, version), version)

    def versions(self) -> list[str]:
        """All versions that can be opened."""
        table = self._open_or_none()
        return sorted(table.tags.list()) if table is not None else []

    def delete_version(self, version: str) -> None:
        """Forget a version; `clean` then frees what no other one needs."""
        table = self._open_or_none()
        if table is not None and version in table.tags.list():
            table.tags.delete(version)

    def clean(self, older_than: timedelta) -> None:
        """Delete files of untagged Lance versions that are older."""
        table = self._open_or_none()
        if table is not None:
            table.to_lance().cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)

    def _build(
        self, table: "LanceTable | None", batches: Iterable[pl.DataFrame], version: str, settings: IndexSettings
    ) -> BuildResult:
        stored = _stored_rows(table)
        wanted: dict[str, str] = {}
        written = 0
        for batch in batches:
            rows = _with_hash(batch)
            wanted.update(rows.select("chunk_id", "row_hash").iter_rows())
            stale = rows.filter(
                pl.Series(
                    [stored.get(i) != h for i, h in rows.select("chunk_id", "row_hash").iter_rows()], dtype=pl.Boolean
                )
            )
            if stale.is_empty():
                continue
            written += stale.height
            table = self._write(table, _arrow(stale))
        if table is None:
            raise NotFoundError(f"There is nothing to index for {self._name}: no chunk has a vector.")
        gone = sorted(stored.keys() - wanted.keys())
        for start in range(0, len(gone), IDS_PER_DELETE):
            ids = ", ".join(f"'{chunk_id}'" for chunk_id in gone[start : start + IDS_PER_DELETE])
            table.delete(f"chunk_id IN ({ids})")
        self._index(table, len(wanted), settings)
        self._tag(table, version, wanted)
        return BuildResult(version, len(wanted), written, len(gone), _kind(table))

    def _write(self, table: "LanceTable | None", rows: pa.Table) -> "LanceTable":
        if table is None:
            made: LanceTable = self._connect().create_table(self._name, rows)
            return made
        table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
        return table

    @staticmethod
    def _index(table: "LanceTable", rows: int, settings: IndexSettings) -> None:
        """Compact, then make the indexes anew.

        Full-text scores of an index that was updated differ from those of a fresh one until all is merged, and IVF training
        is not reproducible; a fresh full-text index and an exhaustive refined search make both kinds reproducible.
        """
        from lancedb.index import FTS, IvfSq

        table.optimize(cleanup_older_than=NEVER)
        table.create_index(
            "search_text",
            config=FTS(
                language=settings.language, stem=True, remove_stop_words=True, lower_case=True, ascii_folding=True
            ),
            replace=True,
        )
        if rows >= ROWS_FOR_ANN:
            partitions = max(1, rows // ROWS_PER_PARTITION)
            table.create_index("vector", config=IvfSq(distance_type="cosine", num_partitions=partitions), replace=True)
        elif any("vector" in index.columns for index in table.list_indices()):
            table.drop_index(next(i.name for i in table.list_indices() if "vector" in i.columns))

    def _tag(self, table: "LanceTable", version: str, wanted: dict[str, str]) -> None:
        """Tag the present Lance version if it holds exactly the wanted rows."""
        number = table.version
        if _stored_rows(table) != wanted:
            raise ConflictError(
                f"Index {self._name} in {self._uri} was built by another run at the same time. Run the build again."
            )
        if version not in table.tags.list():
            table.tags.create(version, number)

    def _connect(self) -> Any:
        import lancedb

        options = {"allow_http": "true"} if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http:") else {}
        return lancedb.connect(self._uri, storage_options=options)

    def _open_or_none(self) -> "LanceTable | None":
        with self._mapped_errors():
            try:
                table: LanceTable = self._connect().open_table(self._name)
            except (FileNotFoundError, ValueError) as error:
                if "not found" in str(error):
                    return None
                raise
            return table

    def _open_tag(self, table: "LanceTable", version: str) -> "LanceTable":
        table.checkout(version)
        return table

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if "Commit conflict" in str(error):
                raise ConflictError(f"Index {self._name}: another run wrote it at the same time: {error}") from error
            raise IndexCorruptError(
                f"Index {self._name} in {self._uri} cannot be read or written: {error}. If its files are damaged, delete"
                " that folder and rebuild it from the lakehouse: llmops index rebuild"
            ) from error


def _with_hash(batch: pl.DataFrame) -> pl.DataFrame:
    """Add a hash of everything but the vector, so that a chunk that only moved is updated without a new vector."""
    places = batch.select(
        pl.concat_str(
            "chunk_id", "document_id", "title", "char_start", "char_end", pl.col("heading_path").list.join("\x1e"),
            separator="\x1f",
        )
    ).to_series()  # fmt: skip
    hashes = [hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:16] for place in places]
    return batch.with_columns(row_hash=pl.Series(hashes, dtype=pl.String))


def _arrow(rows: pl.DataFrame) -> pa.Table:
    dimension = rows["vector"].list.len().max()
    searched = pl.concat_str("title", pl.col("heading_path").list.join("\n"), "text", separator="\n", ignore_nulls=True)
    table = rows.select(*COLUMNS, "row_hash", "vector", search_text=searched).to_arrow()
    schema = pa.schema(
        [
            ("chunk_id", pa.string()),
            ("document_id", pa.string()),
            ("title", pa.string()),
            ("heading_path", pa.list_(pa.string())),
            ("text", pa.string()),
            ("char_start", pa.int64()),
            ("char_end", pa.int64()),
            ("row_hash", pa.string()),
            ("vector", pa.list_(pa.float32(), int(str(dimension)))),
            ("search_text", pa.string()),
        ]
    )
    return table.cast(schema)


def _stored_rows(table: "LanceTable | None") -> dict[str, str]:
    if table is None:
        return {}
    rows = table.to_lance().to_table(columns=["chunk_id", "row_hash"])
    return dict(zip(rows["chunk_id"].to_pylist(), rows["row_hash"].to_pylist(), strict=True))


def _kind(table: "LanceTable") -> str:
    return "ivf_sq" if any("vector" in index.columns for index in table.list_indices()) else "flat"
