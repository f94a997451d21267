"""`corpus/documents`, and `corpus/rejected` with it: one read of the sources fills both."""

from collections.abc import Iterator

import dagster as dg

from llmops_assets.corpus.rejected import rejected_spec
from llmops_assets.house import RETRIES, asset_key, build_pool, described, failing_for_good, materialized, provenance
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


def documents(assistant: Assistant) -> dg.AssetsDefinition:
    """Documents as the sources have them now; edits and deletions come through."""
    spec = dg.AssetSpec(
        asset_key(assistant, "corpus", "documents"),
        description="One row a document, as the sources had it at the latest read.",
        **described(assistant, "corpus", "iceberg", "polars"),
    )

    @dg.multi_asset(
        name="corpus_documents",
        specs=[spec, rejected_spec(assistant)],
        retry_policy=RETRIES,
        pool=build_pool(assistant),
    )
    def corpus_documents(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        from llmops_core.corpus.sync import sync_corpus

        with failing_for_good():
            done = sync_corpus(lakehouse.open(assistant), assistant, provenance(context), context.log.info)
        changes = {"new": done.new, "changed": done.changed, "deleted": done.deleted}
        yield materialized(
            done.documents_snapshot,
            {"dagster/row_count": done.documents, "source_fingerprint": done.fingerprint, **changes},
            spec.key,
        )
        yield materialized(
            done.rejected_snapshot,
            {"dagster/row_count": len(done.rejected), "reasons": dg.MetadataValue.md(done.rejected_markdown())},
            rejected_spec(assistant).key,
        )

    return corpus_documents
