"""`traffic/requests`: what the gateway answered, with everything needed to replay it."""

from datetime import timedelta

import dagster as dg

from llmops_assets.house import RETRIES, asset_key, described, failing_for_good, materialized, provenance
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

# Ingest runs every five minutes, and only when there is something to ingest.
INGEST_WARNS, INGEST_FAILS = timedelta(hours=24), timedelta(days=3)


def traffic_table(assistant: Assistant, noun: str, kind: str, description: str) -> dg.AssetsDefinition:
    """An asset that takes one kind of line out of the gateways' spool segments, each exactly once."""

    @dg.asset(
        key=asset_key(assistant, "traffic", noun),
        description=description,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=INGEST_FAILS, warn_window=INGEST_WARNS),
        retry_policy=RETRIES,
        **described(assistant, "traffic", "iceberg"),
    )
    def traffic(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
        from llmops_core.traffic.ingest import ingest

        lake = lakehouse.open(assistant)
        with failing_for_good():
            done = ingest(
                lake.table(assistant.name, f"traffic_{noun}"), kind, *lake.spool(), assistant.name, provenance(context)
            )
        return materialized(done.snapshot, {"new_rows": done.rows, "segments": done.segments})

    return traffic


def requests(assistant: Assistant) -> dg.AssetsDefinition:
    """The request log."""
    return traffic_table(
        assistant,
        "requests",
        "request",
        "One row a request: release, messages, prompt, query vector, chunks, answer, tokens, timings.",
    )
