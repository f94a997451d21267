"""`lakehouse_maintain`: expiry by the retention rules, and its daily schedule."""

import dagster as dg

from llmops_assets.house import recorded_snapshots
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.maintenance import maintain
from resources.platform import LakehouseResource, ModelsResource

CRON = "0 4 * * *"


def lakehouse_maintain(assistant: Assistant) -> dg.JobDefinition:
    """Expires snapshots and index versions that nothing needs any more, and sweeps unreferenced files."""

    @dg.op(name="maintain")
    def maintain_tables(context: dg.OpExecutionContext, lakehouse: LakehouseResource, models: ModelsResource) -> None:
        done = maintain(
            lakehouse.open(assistant), models.settings(), assistant, recorded_snapshots(context.instance, assistant)
        )
        context.add_output_metadata({"report": dg.MetadataValue.md(done.markdown())})

    @dg.job(name="lakehouse_maintain", description="Retention: snapshots, index versions, unreferenced files, spool.")
    def lakehouse_maintain() -> None:
        maintain_tables()

    return lakehouse_maintain


def maintenance_daily(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every day at four."""
    return dg.ScheduleDefinition(
        name="maintenance_daily",
        job=job,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Applies the retention of assistant.yaml ({CRON}).",
    )
