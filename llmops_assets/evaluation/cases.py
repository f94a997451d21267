"""`evaluation/cases`: the labelled questions of the case file, checked against the corpus."""

from datetime import timedelta

import dagster as dg

from llmops_assets.house import (
    RETRIES,
    asset_key,
    described,
    failing_for_good,
    materialized,
    on_changed_data,
    provenance,
    recorded_snapshot,
)
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

# All three assets of the group are made every night (`evaluation_nightly`): a warning means that one night was missed.
NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=3), warn_window=timedelta(hours=36))


def cases(assistant: Assistant) -> dg.AssetsDefinition:
    """Cases, split by hash into tune and held-out; a gold document that is not in the corpus is an error."""
    upstream = asset_key(assistant, "corpus", "documents")

    @dg.asset(
        key=asset_key(assistant, "evaluation", "cases"),
        deps=[upstream],
        description="One row a labelled question, split by hash into tune and held_out.",
        automation_condition=on_changed_data(),
        freshness_policy=NIGHTLY,
        retry_policy=RETRIES,
        **described(assistant, "evaluation", "iceberg"),
    )
    def evaluation_cases(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
        from llmops_core.evaluation.sync import sync_cases

        documents = recorded_snapshot(context, upstream)
        with failing_for_good():
            done = sync_cases(
                lakehouse.open(assistant), assistant, documents, provenance(context, corpus_documents=documents)
            )
        return materialized(
            done.snapshot,
            {
                "dagster/row_count": done.cases,
                "held_out": done.held_out,
                "with_answers": done.with_answers,
                "corpus_documents_snapshot": documents,
            },
        )

    return evaluation_cases
