"""What an answer came from: its release with who put it there, the parts of that, and the documents of its chunks.

Whatever the log row pins is named with its version and with the run that wrote it. What retention let go of is said to be gone.
"""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable
from llmops_core.release.manifest import Release
from llmops_core.release.registry import Releases
from llmops_core.traffic.ingest import waiting_rows
from llmops_core.traffic.row import RequestRow

DOCUMENT = ("document_id", "document_hash", "title", "uri", "source", "changed_at")
FEEDBACK = ("feedback_id", "at", "subject", "thumbs", "score", "comment", "corrected_answer", "chunk_ratings")
GONE = "no longer retained"


def lineage_of_request(lakehouse: Lakehouse, assistant: str, row: RequestRow) -> dict[str, Any]:
    """The chain behind an answer as a JSON value; parts that a request did not come to are None or empty."""
    if row.release_id is None:
        return {"request": _request(row), "release": None, "feedback": _feedback(lakehouse, assistant, row.request_id)}
    release = Releases(lakehouse, assistant).get(row.release_id)
    manifest = release.manifest
    return {
        "request": _request(row),
        "release": _release(lakehouse, assistant, release, row),
        "prompt": _prompt(lakehouse, assistant, release),
        "generator": manifest.generator.model_dump(mode="json", exclude_none=True),
        "adapter": manifest.generator.adapter,
        "embedder": manifest.embedder.model_dump(mode="json", exclude_none=True),
        "retrieval": manifest.retrieval.model_dump(mode="json", exclude_none=True),
        "index": _index(lakehouse, assistant, release),
        "chunks": _chunks(lakehouse, assistant, release, row),
        "feedback": _feedback(lakehouse, assistant, row.request_id),
    }


def _request(row: RequestRow) -> dict[str, Any]:
    names = ("request_id", "status", "error_type", "model", "channel", "subject", "user", "query", "answer")
    return {name: getattr(row, name) for name in names} | {"started_at": row.started_at.isoformat()}


def _release(lakehouse: Lakehouse, assistant: str, release: Release, row: RequestRow) -> dict[str, Any]:
    events = lakehouse.table(assistant, "release_events").scan().filter(pl.col("release_id") == release.release_id)
    moved = events.filter((pl.col("channel") == row.channel) & (pl.col("at") <= row.started_at))
    latest = moved.sort("at").tail(1).collect()
    decided = events.filter(pl.col("channel").is_null()).sort("at").collect()
    written = lakehouse.table(assistant, "release_manifests").scan()
    by = written.filter(pl.col("release_id") == release.release_id).select("run_id").head(1).collect()
    return {
        "release_id": release.release_id,
        "number": release.number,
        "author": release.author,
        "message": release.message,
        "created_at": release.created_at.isoformat(),
        "run_id": by["run_id"][0],
        "moved": _json(latest.row(0, named=True)) if latest.height else None,
        "decisions": [_json(event) for event in decided.iter_rows(named=True)],
    }


def _prompt(lakehouse: Lakehouse, assistant: str, release: Release) -> dict[str, Any]:
    pin = release.manifest.prompt
    same = (pl.col("name") == pin.name) & (pl.col("version") == pin.version)
    rows = lakehouse.table(assistant, "prompts_versions").scan().filter(same).collect()
    return _json(rows.drop("text", "code_version").row(0, named=True))


def _index(lakehouse: Lakehouse, assistant: str, release: Release) -> dict[str, Any]:
    pin = release.manifest.index
    rows = lakehouse.table(assistant, "index_vector_index").scan()
    found = rows.filter(pl.col("index_version") == pin.version).head(1).collect()
    recorded = _json(found.row(0, named=True)) if found.height else {}
    return {
        "version": pin.version,
        **{name: recorded.get(name) for name in ("rows", "kind", "built_at", "run_id")},
        "snapshots": [
            {"table": table, "snapshot": str(snapshot), **_written(lakehouse.table(assistant, table), snapshot)}
            for table, snapshot in pin.snapshots.items()
        ],
    }


def _written(table: LakeTable, snapshot_id: int) -> dict[str, Any]:
    """When a snapshot was written and by which run."""
    from llmops_core.lakehouse.dataset import snapshot_of

    snapshot = table.load().snapshot_by_id(snapshot_id)
    if snapshot is None:
        return {"at": None, "run_id": None, "state": GONE}
    found = snapshot_of(snapshot)
    return {"at": found.at.isoformat(), "run_id": found.run_id, "state": "retained"}


def _chunks(lakehouse: Lakehouse, assistant: str, release: Release, row: RequestRow) -> list[dict[str, Any]]:
    """The chunks of the prompt, each with the version of its document and the runs that wrote both."""
    ids = [chunk.chunk_id for chunk in row.chunks]
    cut = _at(
        lakehouse, assistant, release, "corpus_chunks", "chunk_id", ids, ("document_hash", "heading_path", "run_id")
    )
    documents = _at(
        lakehouse,
        assistant,
        release,
        "corpus_documents",
        "document_id",
        [chunk.document_id for chunk in row.chunks],
        (*DOCUMENT, "run_id"),
    )
    found = []
    for chunk in row.chunks:
        written = cut.get(chunk.chunk_id)
        document = documents.get(chunk.document_id)
        found.append(
            {
                **chunk.to_payload(),
                "document_hash": written["document_hash"] if written else None,
                "heading_path": written["heading_path"] if written else None,
                "run_id": written["run_id"] if written else None,
                "document": document or {"document_id": chunk.document_id, "state": GONE},
            }
        )
    return found


def _at(
    lakehouse: Lakehouse,
    assistant: str,
    release: Release,
    table: str,
    key: str,
    ids: list[str],
    columns: tuple[str, ...],
) -> Mapping[str, dict[str, Any]]:
    """Rows of a table at the snapshot that the release pins, by id; none if it pins none or that is no longer retained."""
    snapshot = release.manifest.index.snapshots.get(table)
    if snapshot is None or not ids:
        return {}
    try:
        rows = lakehouse.table(assistant, table).scan(snapshot).filter(pl.col(key).is_in(ids)).collect()
    except NotFoundError:
        return {}
    return {row[key]: _json({name: row[name] for name in columns}) for row in rows.iter_rows(named=True)}


def _feedback(lakehouse: Lakehouse, assistant: str, request_id: str) -> list[dict[str, Any]]:
    """What was said of the request, oldest first, as far as gateways have shipped it; `run_id` is null until it is ingested."""
    table = lakehouse.table(assistant, "traffic_feedback")
    waiting = [dict(row) for row in waiting_rows(table, "feedback", *lakehouse.spool(), assistant)]
    rows = table.scan().filter(pl.col("request_id") == request_id).select(*FEEDBACK, "run_id").collect()
    found = [
        _json({**row, "chunk_ratings": json.loads(row["chunk_ratings"] or "null")})
        for row in rows.iter_rows(named=True)
    ]
    known = {row["feedback_id"] for row in found}
    found += [
        {name: row[name] for name in FEEDBACK} | {"run_id": None}
        for row in waiting
        if row["request_id"] == request_id and row["feedback_id"] not in known
    ]
    return sorted(found, key=lambda row: str(row["at"]))


def _json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its times in ISO 8601."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
