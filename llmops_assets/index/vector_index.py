"""`index/vector_index`: the LanceDB table that questions are searched in, one tagged version for each content."""

import dagster as dg

from llmops_assets.house import (
    INDEX_CHECK,
    RETRIES,
    asset_key,
    build_pool,
    described,
    failing_for_good,
    latest_evaluation,
    materialized,
    on_changed_data,
    passed_already,
    provenance,
    recorded,
    recorded_snapshot,
    recorded_with_metadata,
)
from llmops_assets.partitions import embedder_revisions
from llmops_core.assistant import Assistant
from llmops_core.version import code_version
from resources.platform import LakehouseResource, VectorsResource

MIN_RECALL = 0.99


def vector_index(assistant: Assistant) -> dg.AssetsDefinition:
    """The index of an embedder revision, brought up to date in proportion to what changed."""
    chunks = asset_key(assistant, "corpus", "chunks")
    embeddings = asset_key(assistant, "index", "embeddings")

    @dg.asset(
        key=asset_key(assistant, "index", "vector_index"),
        deps=[chunks, embeddings],
        partitions_def=embedder_revisions(assistant),
        description="LanceDB table with vectors and a full-text index; the data version is the index version.",
        automation_condition=on_changed_data(),
        retry_policy=RETRIES,
        pool=build_pool(assistant),
        **described(assistant, "index", "lancedb"),
    )
    def index_vector_index(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource, vectors: VectorsResource
    ) -> dg.MaterializeResult[None]:
        from llmops_core.vectors.index import IndexSettings
        from llmops_core.vectors.sync import sync_index

        revision = context.partition_key
        chunks_snapshot, cut = recorded_with_metadata(context, chunks)
        snapshots = {
            # Not what the documents are now: they may have changed since the chunks were cut.
            "corpus_documents": int(cut["documents_snapshot"]),
            "corpus_chunks": int(chunks_snapshot),
            "index_embeddings": recorded_snapshot(context, embeddings, revision),
        }
        with failing_for_good():
            done = sync_index(
                lakehouse.open(assistant),
                assistant.name,
                vectors.index(assistant, revision),
                revision,
                IndexSettings(assistant.retrieval.language),
                snapshots,
                provenance(context, **snapshots),
                context.log.warning,
            )
        facts = {"dagster/row_count": done.rows, "kind": done.kind, "added": done.added, "deleted": done.deleted}
        read = {f"{name}_snapshot": snapshot for name, snapshot in snapshots.items()}
        damage = {"damage": done.damage} if done.damage else {}
        return materialized(done.version, {**facts, **read, **damage})

    return index_vector_index


def finds_what_exact_search_finds(assistant: Assistant) -> dg.AssetChecksDefinition:
    """Recall of the index against exact search, on vectors of its own chunks: blocking below 0.99."""
    key = asset_key(assistant, "index", "vector_index")

    @dg.asset_check(
        asset=key,
        name=INDEX_CHECK,
        partitions_def=embedder_revisions(assistant),
        blocking=True,
        description=f"Recall@10 against exact search is at least {MIN_RECALL}.",
    )
    def finds_what_exact_search_finds(
        context: dg.AssetCheckExecutionContext, vectors: VectorsResource
    ) -> dg.AssetCheckResult:
        from llmops_core.vectors.recall import recall_of_version

        revision = context.partition_key
        index, version = vectors.index(assistant, revision), recorded(context, key, revision)
        # One that was made anew after damage has another time; else a version never changes.
        judged = f"{version} of {index.built_at()[version].isoformat()}, {MIN_RECALL}, {code_version()}"
        if again := passed_already(latest_evaluation(context, key, INDEX_CHECK, revision), judged):
            return again
        recall = recall_of_version(index.open(version))
        facts: dict[str, float | str] = {"recall_at_10": recall, "data_version": version, "judged": judged}
        return dg.AssetCheckResult(passed=recall >= MIN_RECALL, metadata=facts)

    return finds_what_exact_search_finds
