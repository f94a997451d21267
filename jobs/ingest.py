"""`traffic_ingest`: the request log into Iceberg, and its schedule."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops_assets.house import asset_key
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

CRON = "*/5 * * * *"
NOUNS = ("requests", "feedback")


def traffic_ingest(assistant: Assistant) -> UnresolvedAssetJobDefinition:
    """Takes what the gateways have shipped, each row exactly once."""
    return dg.define_asset_job(
        "traffic_ingest",
        selection=dg.AssetSelection.assets(*(asset_key(assistant, "traffic", noun) for noun in NOUNS)),
        description="Spool segments → traffic/requests and traffic/feedback, each row exactly once.",
    )


def traffic_every_five_minutes(assistant: Assistant, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Every five minutes, skipped while there is nothing to take; the tick fails if rows wait behind a missing segment."""

    @dg.schedule(
        name="traffic_every_five_minutes",
        job=job,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Ingests the request log ({CRON}); skipped while there is nothing new.",
    )
    def traffic_every_five_minutes(lakehouse: LakehouseResource) -> dg.RunRequest | dg.SkipReason:
        from llmops_core.traffic.columns import TRAFFIC_TABLES
        from llmops_core.traffic.ingest import pending

        lake = lakehouse.open(assistant)
        tables = [lake.table(assistant.name, name) for name in TRAFFIC_TABLES]
        waiting = pending(tables, *lake.spool(), assistant.name)
        return dg.RunRequest() if waiting else dg.SkipReason("No new spool segment.")

    return traffic_every_five_minutes
