"""What a document went into: its versions, the releases whose index holds each, and the requests that were answered from it."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable
from llmops_core.release.manifest import Release
from llmops_core.release.registry import Releases

# Requests that are named of each version; how many there are is told.
SHOWN = 20


def lineage_of_document(
    lakehouse: Lakehouse, assistant: str, document_id: str, document_hash: str | None = None
) -> dict[str, Any]:
    """The versions of a document that retained releases hold, as a JSON value; `document_hash` picks those that begin so.

    Requests are those that Iceberg has. Raises `NotFoundError` if no release that is retained holds the document.
    """
    releases = Releases(lakehouse, assistant).all()
    versions: dict[str, dict[str, Any]] = {}
    gone = 0
    rows_of = _Rows(lakehouse, assistant, document_id)
    requests = _requests(lakehouse, assistant, document_id)
    for release in releases:
        row = rows_of(release)
        if row is None:
            gone += 1
        elif row:
            version = versions.setdefault(row["document_hash"], {**row, "releases": [], "requests": 0, "latest": []})
            version["releases"].append({"release_id": release.release_id, "number": release.number})
            _count(version, requests.get(release.release_id, []))
    found = [v for v in versions.values() if v["document_hash"].startswith(document_hash or "")]
    if not found:
        version_text = f" in a version that begins with {document_hash}" if document_hash else ""
        raise NotFoundError(
            f"{assistant}: no release holds document {document_id!r}{version_text}"
            f" ({len(releases)} looked at, of {gone} the documents are no longer retained)."
        )
    return {"document_id": document_id, "versions": found, "releases_not_retained": gone}


class _Rows:
    """The document's row in the documents of a release; releases that share a snapshot are looked at once."""

    def __init__(self, lakehouse: Lakehouse, assistant: str, document_id: str) -> None:
        self._table: LakeTable = lakehouse.table(assistant, "corpus_documents")
        self._document_id = document_id
        self._known: dict[int, dict[str, Any] | None] = {}

    def __call__(self, release: Release) -> Mapping[str, Any] | None:
        """Empty if the release does not hold it; None if its documents are no longer retained."""
        snapshot = release.manifest.index.snapshots.get("corpus_documents")
        if snapshot is None:
            return None
        if snapshot not in self._known:
            self._known[snapshot] = self._look(snapshot)
        return self._known[snapshot]

    def _look(self, snapshot: int) -> dict[str, Any] | None:
        columns = ("document_hash", "title", "uri", "source", "changed_at", "run_id")
        try:
            rows = (
                self._table.scan(snapshot).filter(pl.col("document_id") == self._document_id).select(columns).collect()
            )
        except NotFoundError:
            return None
        for row in rows.iter_rows(named=True):
            return {**row, "changed_at": row["changed_at"].isoformat()}
        return {}


def _requests(lakehouse: Lakehouse, assistant: str, document_id: str) -> dict[str, list[tuple[str, str]]]:
    """By release, the requests with a chunk of the document in the prompt: (time, id)."""
    log = (
        lakehouse.table(assistant, "traffic_requests").scan().select("request_id", "release_id", "started_at", "chunks")
    )
    has_it = pl.col("chunks").list.eval(pl.element().struct.field("document_id") == document_id).list.any()
    found: dict[str, list[tuple[str, str]]] = {}
    for row in log.filter(has_it).select("request_id", "release_id", "started_at").collect().iter_rows(named=True):
        found.setdefault(row["release_id"], []).append((row["started_at"].isoformat(), row["request_id"]))
    return found


def _count(version: dict[str, Any], requests: Iterable[tuple[str, str]]) -> None:
    some = list(requests)
    version["requests"] += len(some)
    latest = [*((r["started_at"], r["request_id"]) for r in version["latest"]), *some]
    version["latest"] = [{"request_id": i, "started_at": at} for at, i in sorted(latest, reverse=True)[:SHOWN]]
