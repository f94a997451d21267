"""Brings a vector index to the chunks and vectors of two Iceberg snapshots: the work behind `index/vector_index`.

The version is the hash of what is in the index and of its settings, so equal content has one version, whenever and from
whichever snapshots it was built.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import IndexCorruptError, NotFoundError, PermanentError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.registry import Releases
from llmops_core.vectors.index import BuildResult, IndexSettings, VectorIndex

ROWS_PER_BATCH = 8_192
# Chunks whose texts are in memory together.
CHUNKS_PER_PASS = 32_768
CHUNK_COLUMNS = ("chunk_id", "document_id", "title", "heading_path", "text", "char_start", "char_end")


@dataclass(frozen=True)
class IndexSync:
    """What was built: the version, its snapshots, and how much work it was."""

    version: str
    rows: int
    kind: str
    snapshots: dict[str, int]
    added: int
    deleted: int
    damage: str
    """What was found damaged or gone, and what came of it, a line each; empty if nothing was."""


def sync_index(
    lakehouse: Lakehouse,
    assistant: str,
    index: VectorIndex,
    revision: str,
    settings: IndexSettings,
    snapshots: dict[str, int],
    provenance: Provenance,
    log: Callable[[str], object],
) -> IndexSync:
    """Build the index version of `snapshots` (tables `corpus_chunks` and `index_embeddings`), and record it.

    An index that is damaged, or gone though versions of it are recorded, is made anew; so is a version that a channel's
    release pins and that cannot be read. `log` is told. Raises `PermanentError` when a chunk has no vector in the given
    snapshot.
    """
    chunks, vectors = _rows(lakehouse, assistant, revision, snapshots)
    _check_vectors(chunks, vectors, assistant, revision)
    version = index_version(chunks, revision, settings)
    versions = lakehouse.table(assistant, "index_vector_index")
    recorded = versions.read().filter(pl.col("embedder_revision") == revision)
    result, damage = _build(index, chunks, vectors, version, settings, is_recorded=not recorded.is_empty())
    row = {
        "index_version": version,
        "embedder_revision": revision,
        "rows": result.rows,
        "kind": result.kind,
        "settings": json.dumps({"language": settings.language}),
        "snapshots": json.dumps(snapshots),
        "built_at": datetime.now(UTC),
    }

    def record(rows: pl.DataFrame) -> tuple[dict[str, int], dict[str, object] | None]:
        """The snapshots of the version, and its row if it is new."""
        known = rows.filter(pl.col("index_version") == version)
        return (snapshots, row) if known.is_empty() else (json.loads(known["snapshots"][0]), None)

    pinned = versions.append_decided(record, provenance)
    served = pl.col("index_version").is_in(_served(lakehouse, assistant)) & (pl.col("index_version") != version)
    damages = [f"Made anew from the lakehouse. {damage}"] if damage else []
    damages += _restore(lakehouse, assistant, index, recorded.filter(served))
    for line in damages:
        log(line)
    return IndexSync(version, result.rows, result.kind, pinned, result.added, result.deleted, "\n".join(damages))


def restore_version(lakehouse: Lakehouse, assistant: str, index: VectorIndex, recorded: Mapping[str, Any]) -> None:
    """Make an index version anew from the snapshots that its row of `index_vector_index` names.

    Raises `NotFoundError` when one of them is no longer retained, `PermanentError` when what they hold is another version.
    """
    version, revision = recorded["index_version"], recorded["embedder_revision"]
    settings = IndexSettings(**json.loads(recorded["settings"]))
    chunks, vectors = _rows(lakehouse, assistant, revision, json.loads(recorded["snapshots"]))
    _check_vectors(chunks, vectors, assistant, revision)
    found = index_version(chunks, revision, settings)
    if found != version:
        raise PermanentError(
            f"{assistant}: the snapshots that index version {version} names hold version {found}. The lakehouse was changed"
            " by something else than llmops."
        )
    # Without its tag it is built beside the present version, with the files of that.
    index.delete_version(version)
    _build(index, chunks, vectors, version, settings, is_recorded=False)


def _check_vectors(chunks: pl.LazyFrame, vectors: pl.LazyFrame, assistant: str, revision: str) -> None:
    without = chunks.join(vectors, on="chunk_id", how="anti").select(pl.len()).collect(engine="streaming").item()
    if without:
        raise PermanentError(
            f"{assistant}: {without} chunks have no vector of {revision} in the recorded snapshot. Materialise"
            " index/embeddings for this partition again."
        )


def _rows(
    lakehouse: Lakehouse, assistant: str, revision: str, snapshots: Mapping[str, int]
) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The chunks and their vectors at these snapshots."""
    chunks = lakehouse.table(assistant, "corpus_chunks").scan(snapshots["corpus_chunks"]).select(CHUNK_COLUMNS)
    vectors = (
        lakehouse.table(assistant, "index_embeddings")
        .scan(snapshots["index_embeddings"])
        .filter(pl.col("embedder_revision") == revision)
        .select("chunk_id", "vector")
    )
    return chunks, vectors


def _served(lakehouse: Lakehouse, assistant: str) -> list[str]:
    """The index versions that channels' releases pin."""
    releases = Releases(lakehouse, assistant)
    on_channels = {pointer.release_id for pointer in releases.channels.state().values()}
    return [release.manifest.index.version for release in releases.all() if release.release_id in on_channels]


def _restore(lakehouse: Lakehouse, assistant: str, index: VectorIndex, versions: pl.DataFrame) -> list[str]:
    """Make those of the recorded versions anew that cannot be read; says what was wrong with each."""
    damages = []
    for row in versions.iter_rows(named=True):
        version = row["index_version"]
        try:
            index.open(version)
        except (NotFoundError, IndexCorruptError) as damage:
            try:
                restore_version(lakehouse, assistant, index, row)
            except Exception as error:
                # Whatever it is, new documents must not wait for an old version.
                damages.append(f"Version {version} is on a channel and cannot be made anew: {error}")
            else:
                damages.append(f"Version {version}, which is on a channel, was made anew from the lakehouse. {damage}")
    return damages


def _build(
    index: VectorIndex,
    chunks: pl.LazyFrame,
    vectors: pl.LazyFrame,
    version: str,
    settings: IndexSettings,
    *,
    is_recorded: bool,
) -> tuple[BuildResult, str]:
    """Build, all anew if what is there cannot be read; also says what was wrong."""
    try:
        is_gone = is_recorded and not index.versions()
        damage = f"Nothing is left of {index}, of which versions are recorded." if is_gone else ""
        return index.build(_batches(chunks, vectors), version, settings), damage
    except IndexCorruptError as error:
        return index.build(_batches(chunks, vectors), version, settings, fresh=True), str(error)


def index_version(chunks: pl.LazyFrame, revision: str, settings: IndexSettings) -> str:
    """Hash the embedder revision, the settings and every chunk with its place in its document."""
    lines = (
        chunks.select(
            "chunk_id",
            line=pl.concat_str("chunk_id", "document_id", "title", "char_start", "char_end", separator="\x1f"),
        )
        .sort("chunk_id")
        .collect(engine="streaming")["line"]
    )
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\x1e")
    return content_hash([revision, settings.language, digest.hexdigest()])


def _batches(chunks: pl.LazyFrame, vectors: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The index's rows, some thousands at a time; a chunk that was embedded twice by racing runs comes once.

    Neither all texts nor all vectors are ever held: the vectors stream by once for each group of chunks.
    """
    ids = chunks.select("chunk_id").collect(engine="streaming")
    for start in range(0, ids.height, CHUNKS_PER_PASS):
        group = ids.slice(start, CHUNKS_PER_PASS).lazy()
        waiting = chunks.join(group, on="chunk_id", how="semi").collect(engine="streaming")
        for some in vectors.collect_batches(chunk_size=ROWS_PER_BATCH, lazy=True):
            rows = waiting.join(some.unique("chunk_id"), on="chunk_id")
            if not rows.is_empty():
                waiting = waiting.join(rows, on="chunk_id", how="anti")
                yield rows
