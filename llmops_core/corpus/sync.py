"""Brings the document tables to what the sources hold now: the work behind `corpus/documents` and `corpus/rejected`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.assistant import Assistant
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.read import empty_corpus, fingerprint, read_all, sources_of
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance

# What makes a stored row stale; the hash covers title and text.
COMPARED = ("document_hash", "uri", "media_type", "source")
REJECTED_SHOWN = 20
# Rows are put into columns so often: a row of Python objects takes several times the memory.
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class CorpusSync:
    """What a read of the sources found and changed."""

    documents: int
    new: int
    changed: int
    deleted: int
    rejected: tuple[Rejected, ...]
    documents_snapshot: int | None
    rejected_snapshot: int | None
    fingerprint: str

    def rejected_markdown(self) -> str:
        """The first rejected things as a table."""
        if not self.rejected:
            return "nothing was rejected"
        rows = [f"| {_cell(r.source)} | {_cell(r.uri)} | {_cell(r.reason)} |" for r in self.rejected[:REJECTED_SHOWN]]
        more = len(self.rejected) - len(rows)
        note = f"\n\nand {more} more in the table" if more else ""
        return "\n".join(["| source | where | why |", "|---|---|---|", *rows]) + note


def sync_corpus(
    lakehouse: Lakehouse, assistant: Assistant, provenance: Provenance, log: Callable[[str], object]
) -> CorpusSync:
    """Read all sources; write what is new or changed, delete what is gone, record what could not be read.

    Nothing changed: nothing is written. Raises `SourceError` if a whole source is away (nothing is deleted then),
    `EmptyCorpusError` if no document is readable, `ConflictError` if another sync was faster: the next one sees its work.
    """
    documents = lakehouse.table(assistant.name, "corpus_documents")
    before = documents.snapshot_id()
    stored = {row[0]: row[1:] for row in documents.scan(before).select("document_id", *COMPARED).collect().iter_rows()}
    sources = sources_of(assistant)
    # Taken before reading: a file that changes while it is read makes the next look see a change again.
    seen_fingerprint = fingerprint(sources, "content")
    now = datetime.now(UTC)
    found: set[str] = set()
    changed: set[str] = set()
    frame = pl.DataFrame(schema=documents.spec.frame_schema)
    fresh: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for item in read_all(sources):
        if isinstance(item, Rejected):
            rejected.append(item)
            continue
        found.add(item.document_id)
        row = _row(item, now)
        if stored.get(item.document_id) != tuple(row[column] for column in COMPARED):
            fresh.append(row)
            if item.document_id in stored:
                changed.add(item.document_id)
        if len(fresh) == ROWS_AT_ONCE:
            frame.extend(pl.DataFrame(fresh, schema=frame.schema))
            fresh.clear()
    frame.extend(pl.DataFrame(fresh, schema=frame.schema))
    if not found:
        raise empty_corpus(sources, rejected)
    deleted = stored.keys() - found
    new = frame.height - len(changed)
    log(f"{len(found)} documents: {new} new, {len(changed)} changed, {len(deleted)} deleted")
    return CorpusSync(
        documents=len(found),
        new=new,
        changed=len(changed),
        deleted=len(deleted),
        rejected=tuple(rejected),
        documents_snapshot=documents.replace("document_id", changed | deleted, frame, provenance, before),
        rejected_snapshot=_write_rejected(
            lakehouse.table(assistant.name, "corpus_rejected"), rejected, now, provenance
        ),
        fingerprint=seen_fingerprint,
    )


def _cell(text: str) -> str:
    """A text as a table's cell: names of files may hold anything."""
    return " ".join(text.split()).replace("|", "\\|")


def _row(document: Document, now: datetime) -> dict[str, Any]:
    return {
        "document_id": document.document_id,
        "document_hash": document.content_hash,
        "title": document.title,
        "text": document.text,
        "uri": document.uri,
        "media_type": document.media_type,
        "source": document.source,
        "changed_at": now,
    }


def _write_rejected(table: LakeTable, rejected: list[Rejected], now: datetime, provenance: Provenance) -> int | None:
    """Write the list only if it differs from the stored one."""
    present = sorted((r.source, r.uri, r.reason) for r in rejected)
    if present == sorted(table.read().select("source", "uri", "reason").iter_rows()):
        return table.snapshot_id()
    rows = [{"source": s, "uri": u, "reason": r, "rejected_at": now} for s, u, r in present]
    return table.overwrite(pl.DataFrame(rows, schema=table.spec.frame_schema), provenance)
