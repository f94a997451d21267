"""`corpus/chunks`: documents cut into retrievable spans."""

import dagster as dg

from llmops_assets.house import (
    RETRIES,
    asset_key,
    build_pool,
    described,
    failing_for_good,
    materialized,
    on_changed_data,
    provenance,
    recorded_snapshot,
)
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource


def chunks(assistant: Assistant) -> dg.AssetsDefinition:
    """Chunks of the current documents; only documents that changed are cut again."""
    upstream = asset_key(assistant, "corpus", "documents")

    @dg.asset(
        key=asset_key(assistant, "corpus", "chunks"),
        deps=[upstream],
        description="One row a chunk: by structure, then by tokens of the embedder, with offsets into the document.",
        automation_condition=on_changed_data(),
        retry_policy=RETRIES,
        pool=build_pool(assistant),
        **described(assistant, "corpus", "iceberg", "polars"),
    )
    def corpus_chunks(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource, models: ModelsResource
    ) -> dg.MaterializeResult[None]:
        from llmops_core.chunks.sync import sync_chunks

        documents = recorded_snapshot(context, upstream)
        with failing_for_good():
            done = sync_chunks(
                lakehouse.open(assistant),
                assistant,
                models.settings(),
                documents,
                provenance(context, corpus_documents=documents),
            )
        return materialized(
            done.snapshot,
            {
                "dagster/row_count": done.chunks,
                "documents_cut": done.documents_cut,
                "documents_snapshot": documents,
                "tokens_median": done.tokens_median,
            },
        )

    return corpus_chunks
