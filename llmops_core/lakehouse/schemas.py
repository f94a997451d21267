"""Every Iceberg table, as code: columns, partitioning, how commits behave.

Table `<group>_<noun>` belongs to asset `[assistant, group, noun]`. Columns may be added here and appear in old homes on
`llmops upgrade`; none is renamed, retyped or dropped. `run_id` and `code_version` are in all tables, so that lineage
outlives the snapshots that a row came with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl
import pyarrow as pa

from llmops_core.evaluation.report import REPORT_SCHEMA
from llmops_core.evaluation.run import RESULT_SCHEMA
from llmops_core.traffic.columns import FEEDBACK_COLUMNS, REQUEST_COLUMNS

TIME = pl.Datetime("us", "UTC")
WRITE_COLUMNS: Mapping[str, tuple[pl.DataType | type[pl.DataType], str]] = {
    "run_id": (pl.String, "Dagster run, or command, that wrote the row"),
    "code_version": (pl.String, "Version of the code that wrote the row"),
}


@dataclass(frozen=True)
class TableSpec:
    """One table: its name, what a row is, its columns as (polars type, meaning), its commits and its past."""

    name: str
    doc: str
    columns: Mapping[str, tuple[pl.DataType | type[pl.DataType], str]]
    partition_by: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    past: Literal["snapshots", "rows"] = "snapshots"
    """What tells the state at an earlier moment: a snapshot of then, kept for `retention.index_days`; or the rows themselves,
    since none is ever changed and each has its time, so that snapshots are there for running readers alone."""
    key: tuple[str, ...] = ()
    """The columns that tell rows apart."""
    log_time: str | None = None
    """The column by which `retention.log_days` counts; rows that are older are deleted."""

    @property
    def frame_schema(self) -> pl.Schema:
        """The columns that callers give and get, without those of the write itself."""
        return pl.Schema({name: kind for name, (kind, _) in self.columns.items()})

    @property
    def arrow_schema(self) -> pa.Schema:
        """All columns with their meaning, for PyIceberg."""
        columns = {**self.columns, **WRITE_COLUMNS}
        plain = pl.Schema({name: kind for name, (kind, _) in columns.items()}).to_frame().to_arrow().schema
        return pa.schema([f.with_metadata({"doc": columns[f.name][1]}) for f in plain])


# A compare-and-set must lose when it loses: PyIceberg's own retry would append again on top of the winner.
COMPARE_AND_SET = {"commit.retry.num-retries": "0"}

TABLES: Mapping[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec(
            "corpus_documents",
            "One row a document, as the sources had it at the latest read.",
            {
                "document_id": (pl.String, "Stable id, unique in the assistant"),
                "document_hash": (pl.String, "Hash of title and text"),
                "title": (pl.String, "Title"),
                "text": (pl.String, "Text that citations point into"),
                "uri": (pl.String, "Where it was read"),
                "media_type": (pl.String, "How the text is structured"),
                "source": (pl.String, "Source that it came from"),
                "changed_at": (TIME, "When this version was first read"),
            },
            key=("document_id",),
            properties=COMPARE_AND_SET,
        ),
        TableSpec(
            "corpus_rejected",
            "One row for each thing in the sources that could not be read, at the latest read.",
            {
                "source": (pl.String, "Source"),
                "uri": (pl.String, "Where it lies"),
                "reason": (pl.String, "Why it was rejected"),
                "rejected_at": (TIME, "When"),
            },
            key=("source", "uri"),
        ),
        TableSpec(
            "corpus_chunks",
            "One row a chunk of a current document.",
            {
                "chunk_id": (pl.String, "Hash of document id, heading path and text"),
                "document_id": (pl.String, "Document"),
                "document_hash": (pl.String, "Version of the document that the offsets point into"),
                "title": (pl.String, "Title of the document"),
                "heading_path": (pl.List(pl.String), "Headings above the chunk, outermost first"),
                "text": (pl.String, "The chunk"),
                "char_start": (pl.Int64, "First character in the document's text"),
                "char_end": (pl.Int64, "Character after the last"),
                "tokens": (pl.Int32, "Tokens of what is embedded"),
                "cutting": (pl.String, "Hash of the settings and tokenizer that cut it"),
            },
            key=("chunk_id",),
            properties=COMPARE_AND_SET,
        ),
        TableSpec(
            "index_embeddings",
            "One row a chunk and embedder revision; vectors are never changed.",
            {
                "embedder_revision": (pl.String, "Embedder revision"),
                "chunk_id": (pl.String, "Chunk"),
                "vector": (pl.List(pl.Float32), "L2-normalised embedding"),
            },
            key=("embedder_revision", "chunk_id"),
            partition_by="embedder_revision",
        ),
        TableSpec(
            "index_vector_index",
            "One row a version of a vector index.",
            {
                "index_version": (pl.String, "Hash of the content and settings; tag of the LanceDB table"),
                "embedder_revision": (pl.String, "Embedder revision; name of the LanceDB table"),
                "rows": (pl.Int64, "Chunks in it"),
                "kind": (pl.String, "flat or ivf_sq"),
                "settings": (pl.String, "Index settings (JSON)"),
                "snapshots": (pl.String, "Iceberg snapshots that it was built from (JSON: table → id)"),
                "built_at": (TIME, "When"),
            },
            key=("index_version",),
            properties=COMPARE_AND_SET,
            past="rows",
        ),
        TableSpec(
            "prompts_versions",
            "One row a version of a prompt.",
            {
                "name": (pl.String, "Name of the prompt"),
                "version": (pl.Int32, "Number, from 1"),
                "hash": (pl.String, "Hash of the text"),
                "text": (pl.String, "Jinja template"),
                "author": (pl.String, "Who"),
                "message": (pl.String, "Why"),
                "created_at": (TIME, "When"),
            },
            key=("name", "version"),
            properties=COMPARE_AND_SET,
            past="rows",
        ),
        TableSpec(
            "release_manifests",
            "One row a release.",
            {
                "release_id": (pl.String, "Hash of the manifest"),
                "number": (pl.Int32, "Number in the assistant, from 1"),
                "manifest": (pl.String, "Manifest, canonical JSON"),
                "author": (pl.String, "Who"),
                "message": (pl.String, "Why"),
                "created_at": (TIME, "When"),
            },
            key=("release_id",),
            properties=COMPARE_AND_SET,
            past="rows",
        ),
        TableSpec(
            "release_events",
            "One row a move of a channel, or a decision about a release; the channels are the fold of this table.",
            {
                "event_id": (pl.String, "UUIDv7"),
                "at": (TIME, "When"),
                "channel": (pl.String, "dev, staging, prod or canary; null for a decision that moves nothing"),
                "action": (pl.String, "promote, rollback, …"),
                "release_id": (pl.String, "Release that the channel points to from now on; null if to none"),
                "previous_release_id": (pl.String, "Release that it pointed to"),
                "previous_event_id": (pl.String, "Event that the mover had seen as the channel's last"),
                "author": (pl.String, "Who"),
                "reason": (pl.String, "Why"),
                "report_id": (pl.String, "Report that the decision rests on"),
                "gate": (pl.String, "What the gate said (JSON)"),
                "experiment": (pl.String, "Canary: event that began it, also after fresh documents"),
                "plan": (pl.String, "Canary: how it was to go when it began (JSON: mode, share, …)"),
            },
            key=("event_id",),
            properties=COMPARE_AND_SET,
            past="rows",
        ),
        TableSpec(
            "traffic_requests",
            "One row a request that the gateway answered.",
            REQUEST_COLUMNS,
            key=("request_id",),
            properties=COMPARE_AND_SET,
            past="rows",
            log_time="started_at",
        ),
        TableSpec(
            "traffic_feedback",
            "One row a message of feedback; the last of a request counts.",
            FEEDBACK_COLUMNS,
            key=("feedback_id",),
            properties=COMPARE_AND_SET,
            past="rows",
            log_time="at",
        ),
        TableSpec(
            "traffic_replays",
            "One row a request that was run again.",
            {
                "request_id": (pl.String, "Request"),
                "logged_release_id": (pl.String, "Release that answered then"),
                "release_id": (pl.String, "Release that it was run on again"),
                "chunks": (pl.Boolean, "Whether the chunks are the same; null in these four: not compared"),
                "scores": (pl.Boolean, "Whether their scores are"),
                "prompt": (pl.Boolean, "Whether the final prompt is, to the byte"),
                "answer": (pl.Boolean, "Whether the answer is"),
                "query_vector": (pl.Boolean, "Whether embedding the query again gives the logged vector"),
                "promised": (pl.Boolean, "Whether the engine promised the same answer again"),
                "differences": (pl.String, "What differs, the part where it entered first (JSON)"),
                "answered": (pl.String, "The answer now"),
                "error": (pl.String, "Why it could not be run again"),
                "replayed_at": (TIME, "When"),
            },
            key=("request_id", "release_id", "replayed_at"),
            past="rows",
            log_time="replayed_at",
        ),
        TableSpec(
            "evaluation_cases",
            "One row a labelled question.",
            {
                "case_id": (pl.String, "Id from the case file"),
                "case_hash": (pl.String, "Hash of question, gold documents and answers"),
                "question": (pl.String, "Question"),
                "gold_document_ids": (pl.List(pl.String), "Documents that answer it"),
                "answers": (pl.List(pl.String), "Short answers that count as right"),
                "split": (pl.String, "tune or held_out"),
            },
            key=("case_id",),
        ),
        TableSpec(
            "evaluation_results",
            "One row a case and release.",
            {
                "release_id": (pl.String, "Release that was evaluated"),
                "case_id": (RESULT_SCHEMA["case_id"], "Case"),
                "case_hash": (RESULT_SCHEMA["case_hash"], "Version of the case"),
                "split": (RESULT_SCHEMA["split"], "tune or held_out"),
                "retrieved_document_ids": (RESULT_SCHEMA["retrieved_document_ids"], "First 10 documents, best first"),
                "recall_at_1": (RESULT_SCHEMA["recall_at_1"], "Share of the gold documents in the first 1"),
                "recall_at_5": (RESULT_SCHEMA["recall_at_5"], "Share of the gold documents in the first 5"),
                "ndcg_at_10": (RESULT_SCHEMA["ndcg_at_10"], "Normalised discounted cumulative gain of the first 10"),
                "retrieval_ms": (RESULT_SCHEMA["retrieval_ms"], "Time of retrieval, ms"),
                "answer": (RESULT_SCHEMA["answer"], "Answer; null if the case was not answered"),
                "exact_match": (RESULT_SCHEMA["exact_match"], "1 if a right answer is met exactly"),
                "f1": (RESULT_SCHEMA["f1"], "Word overlap with the nearest right answer"),
                "empty": (RESULT_SCHEMA["empty"], "Whether the answer is blank"),
                "answer_ms": (RESULT_SCHEMA["answer_ms"], "Time of the answer, ms"),
                "error": (RESULT_SCHEMA["error"], "What went wrong with this case"),
                "evaluated_at": (TIME, "When"),
            },
            key=("release_id", "case_id"),
        ),
        TableSpec(
            "evaluation_reports",
            "One row a metric, split and report of a release.",
            {
                "report_id": (pl.String, "Hash of release and results"),
                "release_id": (REPORT_SCHEMA["release_id"], "Release"),
                "split": (REPORT_SCHEMA["split"], "all, tune or held_out"),
                "metric": (REPORT_SCHEMA["metric"], "Metric"),
                "value": (REPORT_SCHEMA["value"], "Estimate"),
                "low": (REPORT_SCHEMA["low"], "Lower end of its interval"),
                "high": (REPORT_SCHEMA["high"], "Upper end"),
                "n": (REPORT_SCHEMA["n"], "Cases that it comes from"),
                "evaluated_at": (TIME, "When"),
            },
            key=("report_id", "split", "metric"),
            properties=COMPARE_AND_SET,
            past="rows",
        ),
    )
}
