"""The columns of `traffic_requests` and `traffic_feedback`, and frames of spool lines in them.

What has a fixed shape is a real column; what differs from one assistant or version to the next is JSON in a string, so
that a new key changes no table.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from llmops_core.errors import PermanentError
from llmops_core.traffic.row import FeedbackRow, LoggedChunk, RequestRow

ColumnType = pl.DataType | type[pl.DataType]
Columns = Mapping[str, tuple[ColumnType, str]]

# Who takes what a gateway logs; a spool segment is done with when each of them has it.
TRAFFIC_TABLES = ("traffic_requests", "traffic_feedback")

TIME = pl.Datetime("us", "UTC")
CHUNKS = pl.List(
    pl.Struct(
        {
            "chunk_id": pl.String,
            "document_id": pl.String,
            "title": pl.String,
            "char_start": pl.Int64,
            "char_end": pl.Int64,
            "score": pl.Float64,
            "rank": pl.Int32,
        }
    )
)

PLACE_COLUMNS: Columns = {
    "gateway_id": (pl.String, "Gateway that wrote the row"),
    "segment": (pl.Int64, "Spool segment of that gateway, from 1"),
    "row": (pl.Int32, "Row of that segment, from 0"),
}

REQUEST_COLUMNS: Columns = {
    "request_id": (pl.String, "UUIDv7"),
    "assistant": (pl.String, "Assistant"),
    "started_at": (TIME, "When it arrived"),
    "subject": (pl.String, "Subject of the API key"),
    "user": (pl.String, "User on whose behalf it was asked"),
    "model": (pl.String, "Model as asked for"),
    "release_id": (pl.String, "Release that answered"),
    "channel": (
        pl.String,
        "How the release was chosen: prod, canary, staging, dev or pinned; shadow: a copy for nobody",
    ),
    "experiment": (pl.String, "Experiment of the canary, if the request counts for one of its arms"),
    "shadow_of": (pl.String, "Request that this is a copy of"),
    "status": (pl.Int32, "HTTP status"),
    "error_type": (pl.String, "Type of the error, if any"),
    "error_message": (pl.String, "Message of the error, if any"),
    "stream": (pl.Boolean, "Whether the answer was streamed"),
    "messages": (pl.String, "Messages as received (JSON)"),
    "query": (pl.String, "What was searched for"),
    "query_vector": (pl.List(pl.Float32), "Embedding of the query"),
    "embedder_revision": (pl.String, "Embedder revision"),
    "index_version": (pl.String, "Index version"),
    "prompt_name": (pl.String, "Name of the prompt"),
    "prompt_version": (pl.Int32, "Version of the prompt"),
    "prompt_hash": (pl.String, "Hash of the prompt"),
    "prompt": (pl.String, "Messages sent to the engine (JSON)"),
    "chunks": (CHUNKS, "Chunks in the prompt, best first"),
    "cut": (pl.String, "What the token budget took away (JSON: chunks, history, features → how many)"),
    "features": (pl.String, "Features used (JSON: view → version, values)"),
    "generator_model": (pl.String, "Generator"),
    "generator_revision": (pl.String, "Generator revision"),
    "adapter": (pl.String, "Adapter, by content hash"),
    "sampling": (pl.String, "Sampling parameters and seed (JSON)"),
    "answer": (pl.String, "Answer"),
    "citations": (pl.String, "Chunks that the answer cites (JSON)"),
    "finish_reason": (pl.String, "Why the answer ended"),
    "prompt_tokens": (pl.Int32, "Tokens of the prompt"),
    "completion_tokens": (pl.Int32, "Tokens of the answer"),
    "cost_basis": (pl.String, "What the cost follows from (JSON)"),
    "cache": (pl.String, "Decision of the cache (JSON)"),
    "routing": (pl.String, "Decision of the router (JSON)"),
    "timings_ms": (pl.String, "Time by stage, ms (JSON)"),
    "reproducible": (pl.String, "Whether the engine promises the same answer again, and why not (JSON)"),
    # The table's own `code_version` is that of the ingest.
    "gateway_code_version": (pl.String, "Version of the gateway's code"),
    "lock_hash": (pl.String, "Hash of the gateway's installed distributions"),
    **PLACE_COLUMNS,
}

FEEDBACK_COLUMNS: Columns = {
    "feedback_id": (pl.String, "UUIDv7"),
    "request_id": (pl.String, "Request that it is about"),
    "assistant": (pl.String, "Assistant"),
    "at": (TIME, "When it was given"),
    "subject": (pl.String, "Subject of the API key"),
    "thumbs": (pl.Int32, "-1 or 1"),
    "score": (pl.Float64, "0 to 1"),
    "comment": (pl.String, "Comment"),
    "corrected_answer": (pl.String, "What the answer should have been"),
    "chunk_ratings": (pl.String, "Ratings of chunks (JSON: chunk id → -1 or 1)"),
    **PLACE_COLUMNS,
}

REQUEST_JSON = frozenset(
    ("messages", "prompt", "cut", "features", "sampling", "citations", "cost_basis", "cache", "routing", "timings_ms")
) | {"reproducible"}
FEEDBACK_JSON = frozenset(("chunk_ratings",))


def frame_schema(columns: Columns) -> pl.Schema:
    """The polars schema of columns."""
    return pl.Schema({name: kind for name, (kind, _) in columns.items()})


def request_frame(lines: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Spool lines of requests as a frame of `REQUEST_COLUMNS`; raises `PermanentError` for a row that does not fit."""
    records = []
    for line in lines:
        row = RequestRow.from_payload(line["payload"])
        record = {**vars(row), "gateway_code_version": row.code_version, **_place(line)}
        record["chunks"] = [vars(chunk) for chunk in row.chunks]
        records.append(record)
    return _frame(records, REQUEST_COLUMNS, REQUEST_JSON)


def request_rows(frame: pl.DataFrame) -> list[RequestRow]:
    """The rows of a frame of `REQUEST_COLUMNS` (and maybe others), as the gateway wrote them."""
    rows = []
    for record in frame.select(list(REQUEST_COLUMNS)).iter_rows(named=True):
        record["code_version"] = record.pop("gateway_code_version")
        for name in REQUEST_JSON:
            record[name] = None if record[name] is None else json.loads(record[name])
        record["chunks"] = [LoggedChunk(**chunk) for chunk in record["chunks"]]
        rows.append(RequestRow(**{name: value for name, value in record.items() if name not in PLACE_COLUMNS}))
    return rows


def feedback_frame(lines: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Spool lines of feedback as a frame of `FEEDBACK_COLUMNS`; raises `PermanentError` for a row that does not fit."""
    records = [{**vars(FeedbackRow.from_payload(line["payload"])), **_place(line)} for line in lines]
    return _frame(records, FEEDBACK_COLUMNS, FEEDBACK_JSON)


def _place(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in PLACE_COLUMNS}


def _frame(records: list[dict[str, Any]], columns: Columns, as_json: frozenset[str]) -> pl.DataFrame:
    series = []
    for name, kind in frame_schema(columns).items():
        values = [record[name] for record in records]
        if name in as_json:
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        if kind == pl.String:
            values = [_storable(value) for value in values]
        try:
            series.append(pl.Series(name, values, dtype=kind, strict=True))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            raise PermanentError(
                f"Column {name} of the request log takes {kind}, and a row of gateway {records[0]['gateway_id']}, segments"
                f" {records[0]['segment']} to {records[-1]['segment']}, has something else: {error}"
            ) from error
    return pl.DataFrame(series)


def _storable(value: Any) -> Any:
    """Text that is valid UTF-8: half a surrogate pair, which JSON can carry and a table cannot, becomes `?`."""
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="replace").decode()
    return value
