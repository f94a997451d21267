"""What is killed just before a write of it, again and again, is whole when a run gets through: nothing lost, nothing twice."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from llmops_core.chunks.chunk import embedded_text
from llmops_core.embedders import sync as embedding
from llmops_core.embedders.sync import EmbeddingTables, embed_bucket, missing_by_bucket
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.settings import load_settings
from llmops_core.traffic import ingest as ingesting
from llmops_core.traffic.folder import abandoned
from llmops_core.traffic.ingest import ingest, pending, taken_by_all
from llmops_core.traffic.line import OPEN, SEALED
from llmops_core.traffic.open_segment import SealRule
from llmops_core.traffic.row import FeedbackRow, RequestRow
from llmops_core.traffic.shipping import Shipper
from llmops_core.traffic.spool import SpoolWriter
from llmops_core.vectors.index import IndexSettings, VectorIndex
from llmops_core.vectors.sync import sync_index
from tests.kills import Killing, needs_seccomp
from tests.llmops_core.embedders.test_sync import HashEmbedder
from tests.llmops_core.traffic.conftest import feedback_row, request_row  # noqa: F401 (fixtures)
from tests.llmops_core.vectors.conftest import make_row, query_vector  # noqa: F401 (fixtures)

pytestmark = needs_seccomp

NAME = "helper"
RUN = Provenance("run")
REVISION = "hash-1"
CHUNKS, PER_COMMIT = 60, 8
TRAFFIC = {"traffic_requests": "request", "traffic_feedback": "feedback"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the tables of an assistant."""
    home = tmp_path / "home"
    opened(home).prepare(NAME)
    return home


def opened(home: Path) -> Lakehouse:
    return Lakehouse.open(load_settings(home=home))


def snapshot(lakehouse: Lakehouse, table: str) -> int:
    found = lakehouse.table(NAME, table).snapshot_id()
    assert found is not None
    return found


class TellingEmbedder(HashEmbedder):
    """Writes each text down before it embeds it."""

    def __init__(self, told: Path) -> None:
        super().__init__(may_make=10 * CHUNKS)
        self._told = told

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._told.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts)
        return super().embed_documents(texts)


def embed(home: Path, told: Path) -> None:
    """What the steps of `index/embeddings` do."""
    embedding.CHUNKS_PER_COMMIT, embedding.CHUNKS_PER_BATCH = PER_COMMIT, 3
    lakehouse = opened(home)
    lakehouse.prepare(NAME)
    tables = EmbeddingTables.of(lakehouse, NAME, snapshot(lakehouse, "corpus_chunks"))
    for bucket in missing_by_bucket(tables, REVISION, 2):
        embed_bucket(tables, TellingEmbedder(told), REVISION, bucket, 2, RUN, lambda done, of: None)


def test_killed_embedding_goes_on_behind_its_last_commit(home: Path, tmp_path: Path) -> None:
    chunks = opened(home).table(NAME, "corpus_chunks")
    ids = [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(CHUNKS)]
    rows = [{"chunk_id": i, "title": "", "heading_path": [], "text": f"text {i}", "tokens": 3} for i in ids]
    chunks.append(pl.DataFrame(rows, schema=chunks.spec.frame_schema), RUN)
    texts = {embedded_text("", (), f"text {i}"): i for i in ids}
    file = tmp_path / "told"

    def told() -> list[str]:
        return [texts[json.loads(line)] for line in file.read_text().splitlines()] if file.exists() else []

    def vectors() -> dict[str, list[float]]:
        found = opened(home).table(NAME, "index_embeddings").read()
        assert found["chunk_id"].is_unique().all()
        return dict(found["chunk_id", "vector"].iter_rows())

    killing = Killing(home, embed, home, file)
    killing.undisturbed()
    whole = vectors()
    assert set(whole) == set(ids)
    assert sorted(told()) == sorted(ids)

    committed: list[tuple[int, set[str]]] = [(0, set())]
    file.unlink()
    for kills in killing.rounds(lambda: committed.append((len(told()), set(vectors())))):
        assert vectors() == whole
        assert len(told()) <= CHUNKS + kills * PER_COMMIT
        for before, there in committed:
            assert there.isdisjoint(told()[before:])
        committed[1:] = []
        file.unlink()


def take_in(home: Path) -> None:
    """What a gateway does with spools of gateways that are gone, and the job `traffic_ingest` with what it shipped."""
    ingesting.SEGMENTS_PER_COMMIT = 2
    lakehouse = opened(home)
    lakehouse.prepare(NAME)
    spool = load_settings(home=home).spool
    tables = [lakehouse.table(NAME, name) for name in TRAFFIC]
    for folder in abandoned(spool, NAME):
        Shipper(folder, *lakehouse.spool(), NAME).ship()
    for table in tables:
        ingest(table, TRAFFIC[table.spec.name], *lakehouse.spool(), NAME, RUN)
    for folder in abandoned(spool, NAME):
        Shipper(folder, *lakehouse.spool(), NAME).forget(taken_by_all(tables)[folder.gateway_id])


async def log(spool: Path, *gateways: Sequence[RequestRow | FeedbackRow]) -> None:
    """Have gateways log these rows and be gone, each with its last segment still open."""
    writers = [SpoolWriter(spool, NAME, SealRule(max_rows=2)).open() for _ in gateways]
    for writer, rows in zip(writers, gateways, strict=True):
        for row in rows:
            await writer.append("request" if isinstance(row, RequestRow) else "feedback", row.to_payload())
        writer.close()
        last = max(writer.folder.path.glob(f"*{SEALED}"))
        last.rename(last.with_suffix(OPEN))


def test_killed_ingest_takes_every_row_once(
    home: Path,
    request_row: Callable[..., RequestRow],  # noqa: F811
    feedback_row: FeedbackRow,  # noqa: F811
) -> None:
    requests = [request_row() for _ in range(11)]
    spool = load_settings(home=home).spool
    asyncio.run(log(spool, [*requests[:6], feedback_row], requests[6:]))
    acknowledged = {
        "traffic_requests": {r.request_id for r in requests},
        "traffic_feedback": {feedback_row.feedback_id},
    }

    def taken() -> dict[str, list[Any]]:
        lakehouse = opened(home)
        rows = {name: lakehouse.table(NAME, name).read() for name in TRAFFIC}
        for name, kind in TRAFFIC.items():
            assert rows[name][f"{kind}_id"].is_unique().all()
        return {name: frame.sort(f"{TRAFFIC[name]}_id").rows() for name, frame in rows.items()}

    killing = Killing(home, take_in, home)
    killing.undisturbed()
    whole = taken()
    assert {name: {row[0] for row in rows} for name, rows in whole.items()} == acknowledged
    for _ in killing.rounds(taken):
        assert taken() == whole
        lakehouse = opened(home)
        assert pending([lakehouse.table(NAME, name) for name in TRAFFIC], *lakehouse.spool(), NAME) == 0
        assert not list(spool.glob(f"*/*/*{SEALED}"))


def bring_up(home: Path, *states: dict[str, int]) -> None:
    """What `index/vector_index` does for each of these states, one after the other."""
    lakehouse = opened(home)
    lakehouse.prepare(NAME)
    for state in states:
        sync_index(lakehouse, NAME, index_of(home), REVISION, SETTINGS, state, RUN, print)


def index_of(home: Path) -> VectorIndex:
    return VectorIndex(f"{load_settings(home=home).lancedb}/{NAME}", REVISION)


SETTINGS = IndexSettings(ann_from_rows=50)


def contents(index: VectorIndex, version: str, query_vector: Any) -> list[Any]:  # noqa: F811
    """Everything that a version has, in the order in which searches find it."""
    reader = index.open(version)
    searches = [(reader.dense(query_vector(n), 200), reader.full_text(f"running word{n}", 200)) for n in range(3)]
    return [reader.rows, reader.kind, *searches]


@pytest.mark.parametrize("from_nothing", [True, False], ids=["the first version", "the next version"])
def test_a_killed_index_build_harms_no_version_and_the_next_completes(
    home: Path,
    tmp_path: Path,
    make_row: Any,  # noqa: F811
    query_vector: Any,  # noqa: F811
    from_nothing: bool,
) -> None:
    lakehouse = opened(home)
    states = []
    for numbers in (range(80), range(25, 110)):
        made = pl.DataFrame([make_row(n, char_start=n % 2) | {"document_hash": "h", "cutting": "c"} for n in numbers])
        chunks, vectors = (lakehouse.table(NAME, name) for name in ("corpus_chunks", "index_embeddings"))
        chunks.overwrite(made.select(chunks.spec.frame_schema.names()), RUN)
        new = made.filter(~pl.col("chunk_id").is_in(vectors.read()["chunk_id"].implode()))
        vectors.append(new.select("chunk_id", "vector", embedder_revision=pl.lit(REVISION)), RUN)
        states.append({name: snapshot(lakehouse, name) for name in ("corpus_chunks", "index_embeddings")})
    if not from_nothing:
        bring_up(home, states[0])

    def versions() -> list[str]:
        return sorted(opened(home).table(NAME, "index_vector_index").read()["index_version"])

    there = {version: contents(index_of(home), version, query_vector) for version in versions()}

    def as_before() -> None:
        assert {version: contents(index_of(home), version, query_vector) for version in there} == there

    killing = Killing(home, bring_up, home, states[0 if from_nothing else 1])
    killing.undisturbed()
    whole = {version: contents(index_of(home), version, query_vector) for version in versions()}
    assert len(whole) == len(there) + 1
    for _ in killing.rounds(as_before):
        assert {version: contents(index_of(home), version, query_vector) for version in versions()} == whole
        assert sorted(index_of(home).versions()) == versions()
