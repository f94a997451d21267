"""Brings the chunk table to a snapshot of the documents: the work behind `corpus/chunks`."""

from dataclasses import asdict, dataclass

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


@dataclass(frozen=True)
class ChunksSync:
    """What was cut, and what there is now."""

    chunks: int
    documents_cut: int
    tokens_median: float
    snapshot: int | None


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
    before = table.snapshot_id()
    cut = table.scan(before).select("document_id", "document_hash", "cutting").unique()
    key = ["document_id", "document_hash"]
    stale = documents.join(cut.filter(pl.col("cutting") == cutting), on=key, how="anti").collect()
    gone = cut.join(documents, on=key, how="anti").select("document_id").collect()["document_id"]
    if not stale.is_empty() or not gone.is_empty():
        tokens = load_tokens(folder)
        chunks = [
            chunk
            for row in stale.iter_rows(named=True)
            for chunk in chunk_document(_document(row), tokens, section.size, section.overlap)
        ]
        frame = pl.DataFrame([_row(chunk, cutting) for chunk in chunks], schema=table.spec.frame_schema)
        table.replace("document_id", {*stale["document_id"], *gone}, frame, provenance, before)
    present = table.scan().select(pl.len().alias("chunks"), pl.median("tokens").alias("median")).collect()
    return ChunksSync(int(present["chunks"][0]), stale.height, float(present["median"][0] or 0), table.snapshot_id())


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
