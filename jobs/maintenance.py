"""`lakehouse_maintain`: the retention of assistant.yaml applied, and its daily schedule."""

import dagster as dg

from jobs.build import exclusive
from llmops_assets.house import build_pool, failing_for_good, recorded_versions
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource

CRON = "0 4 * * *"


def lakehouse_maintain(assistant: Assistant) -> dg.JobDefinition:
    """Deletes what nothing needs any more, and merges small files; never beside a build, whose pool it shares."""

    @dg.op(name="maintain", pool=build_pool(assistant), out=dg.Out(dg.Nothing))
    def maintain_tables(
        context: dg.OpExecutionContext, lakehouse: LakehouseResource, models: ModelsResource
    ) -> dg.Output[None]:
        from llmops_core.lakehouse.table import Provenance
        from llmops_core.maintenance.maintain import maintain

        with failing_for_good():
            done = maintain(
                lakehouse.open(assistant),
                models.settings(),
                assistant,
                recorded_versions(context.instance, assistant),
                Provenance(context.run.run_id),
            )
        report = {"report": dg.MetadataValue.md(done.markdown()), "result": dg.MetadataValue.json(done.to_dict())}
        return dg.Output(None, metadata=report)

    @dg.job(
        name="lakehouse_maintain",
        description="Retention: log rows, snapshots, index versions, unreferenced files, spool; small files merged.",
        tags=exclusive(assistant),
    )
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
