"""Brings the document tables to what the sources hold now: the work behind `corpus/documents` and `corpus/rejected`."""

from collections.abc import Callable, Iterable, Iterator
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
# What is held in memory before it is written, as a file each: about 100 MB with all copies on the way.
ROWS_PER_FILE = 10_000
CHARACTERS_PER_FILE = 16_000_000


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
    sources = sources_of(assistant)
    # Taken before reading: a file that changes while it is read makes the next look see a change again.
    seen_fingerprint = fingerprint(sources, "content")
    now = datetime.now(UTC)
    found = _Found(documents, before, now)
    outdated: set[str] = set()

    def fresh() -> Iterator[pl.DataFrame]:
        yield from found.fresh(read_all(sources))
        if not found.ids:
            raise empty_corpus(sources, found.rejected)
        log(
            f"{len(found.ids)} documents: {found.new} new, {len(found.changed)} changed, {len(found.deleted())} deleted"
        )
        outdated.update(found.changed, found.deleted())

    snapshot = documents.replace("document_id", outdated, fresh(), provenance, before)
    rejected = lakehouse.table(assistant.name, "corpus_rejected")
    return CorpusSync(
        documents=len(found.ids),
        new=found.new,
        changed=len(found.changed),
        deleted=len(found.deleted()),
        rejected=tuple(found.rejected),
        documents_snapshot=snapshot,
        rejected_snapshot=_write_rejected(rejected, found.rejected, now, provenance),
        fingerprint=seen_fingerprint,
    )


class _Found:
    """Compares the documents that the sources hold with the stored ones."""

    def __init__(self, documents: LakeTable, snapshot: int | None, now: datetime) -> None:
        self._schema = documents.spec.frame_schema
        self._now = now
        rows = documents.scan(snapshot).select("document_id", *COMPARED).collect(engine="streaming")
        self._stored = {row[0]: row[1:] for row in rows.iter_rows()}
        self.ids: set[str] = set()
        self.changed: set[str] = set()
        self.new = 0
        self.rejected: list[Rejected] = []

    def fresh(self, items: Iterable[Document | Rejected]) -> Iterator[pl.DataFrame]:
        """Rows of the documents that are new or changed, some at a time; keeps account of all."""
        rows: list[dict[str, Any]] = []
        characters = 0
        for item in items:
            if isinstance(item, Rejected):
                self.rejected.append(item)
                continue
            row = _row(item, self._now)
            if self._note(row):
                rows.append(row)
                characters += len(item.text)
            if len(rows) == ROWS_PER_FILE or characters >= CHARACTERS_PER_FILE:
                yield pl.DataFrame(rows, schema=self._schema)
                rows, characters = [], 0
        yield pl.DataFrame(rows, schema=self._schema)

    def deleted(self) -> set[str]:
        """Stored documents that did not come."""
        return self._stored.keys() - self.ids

    def _note(self, row: dict[str, Any]) -> bool:
        """Whether a document has to be written."""
        document_id = row["document_id"]
        self.ids.add(document_id)
        stored = self._stored.get(document_id)
        if stored == tuple(row[column] for column in COMPARED):
            return False
        if stored is None:
            self.new += 1
        else:
            self.changed.add(document_id)
        return True


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
    present, before = sorted((r.source, r.uri, r.reason) for r in rejected), table.snapshot_id()
    if present == sorted(table.read(before).select("source", "uri", "reason").iter_rows()):
        return before
    rows = [{"source": s, "uri": u, "reason": r, "rejected_at": now} for s, u, r in present]
    return table.overwrite(pl.DataFrame(rows, schema=table.spec.frame_schema), provenance)
