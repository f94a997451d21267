"""Brings the chunk table to a snapshot of the documents: the work behind `corpus/chunks`."""

from dataclasses import asdict, dataclass
from itertools import islice

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.chunks.chunk import Chunk
from llmops_core.chunks.chunker import chunk_document
from llmops_core.corpus.document import Document
from llmops_core.ids import content_hash
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.models.store import model_folder
from llmops_core.models.tokens import load_tokens
from llmops_core.settings import Settings

# What is held in memory: documents that are read, and chunks before they are written, as a file each.
DOCUMENTS_AT_ONCE = 256
CHUNKS_PER_FILE = 16_384


@dataclass(frozen=True)
class ChunksSync:
    """What was cut, and what there is now."""

    chunks: int
    documents_cut: int
    tokens_median: float
    snapshot: int | None
    """Of the chunk table, with what this sync made and nothing that came since."""


def sync_chunks(
    lakehouse: Lakehouse, assistant: Assistant, settings: Settings, documents_snapshot: int, provenance: Provenance
) -> ChunksSync:
    """Cut the documents that are new, changed or were cut by other settings; drop the chunks of documents that are gone.

    Raises `ConflictError` if another sync was faster; the next one sees its work.
    """
    section = assistant.chunking
    folder = model_folder(settings, assistant.embedder.model, "embedder")
    cutting = content_hash([section.size, section.overlap, content_hash((folder / "tokenizer.json").read_bytes())])
    documents = lakehouse.table(assistant.name, "corpus_documents").scan(documents_snapshot)
    table = lakehouse.table(assistant.name, "corpus_chunks")
    snapshot = before = table.snapshot_id()
    identity = ["document_id", "document_hash", "cutting"]
    wanted = documents.select("document_id", "document_hash", cutting=pl.lit(cutting))
    cut = table.scan(before).select(identity).unique()
    stale = wanted.join(cut, on=identity, how="anti").select("document_id").collect(engine="streaming")
    gone = cut.join(wanted, on=identity, how="anti").select("document_id").collect(engine="streaming")
    if not stale.is_empty() or not gone.is_empty():
        tokens = load_tokens(folder)
        to_cut = documents.join(stale.lazy(), on="document_id", how="semi", maintain_order="left")
        chunks = (
            chunk
            for rows in to_cut.collect_batches(chunk_size=DOCUMENTS_AT_ONCE, lazy=True)
            for row in rows.iter_rows(named=True)
            for chunk in chunk_document(_document(row), tokens, section.size, section.overlap)
        )
        frames = (
            pl.DataFrame([_row(chunk, cutting) for chunk in some], schema=table.spec.frame_schema)
            for some in iter(lambda: list(islice(chunks, CHUNKS_PER_FILE)), [])
        )
        snapshot = table.replace("document_id", gone["document_id"].to_list(), frames, provenance, before)
    # Of this sync: another may have committed since, and its chunks point into other documents.
    counts = table.scan(snapshot).select(pl.len().alias("chunks"), pl.median("tokens").alias("median"))
    present = counts.collect(engine="streaming")
    return ChunksSync(int(present["chunks"][0]), stale.height, float(present["median"][0] or 0), snapshot)


def _document(row: dict[str, str]) -> Document:
    return Document(
        document_id=row["document_id"],
        title=row["title"],
        text=row["text"],
        uri=row["uri"],
        media_type=row["media_type"],  # type: ignore[arg-type]
        source=row["source"],
    )


def _row(chunk: Chunk, cutting: str) -> dict[str, object]:
    return {**asdict(chunk), "heading_path": list(chunk.heading_path), "cutting": cutting}
