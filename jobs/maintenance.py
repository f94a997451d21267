"""`lakehouse_maintain`: the retention of assistant.yaml applied, and its daily schedule."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from jobs.build import exclusive
from llmops_assets.house import build_pool, failing_for_good, recorded_versions
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource

if TYPE_CHECKING:
    from llmops_core.lakehouse.lakehouse import Lakehouse
    from llmops_core.lakehouse.table import Provenance
    from llmops_core.maintenance.report import Maintained
    from llmops_core.settings import Settings

CRON = "0 4 * * *"


def maintain_all(
    instance: dg.DagsterInstance,
    lakehouse: "Lakehouse",
    settings: "Settings",
    assistant: Assistant,
    provenance: "Provenance",
    *,
    dry_run: bool = False,
    now: datetime | None = None,
) -> "Maintained":
    """What `maintain` does, and then Dagster's history of runs; a clock that is doubted deletes neither."""
    from jobs.run_history import forget_runs, unneeded_runs
    from llmops_core.maintenance.maintain import maintain

    recorded = recorded_versions(instance, assistant)
    done = maintain(lakehouse, settings, assistant, recorded, provenance, dry_run=dry_run, now=now)
    if done.doubt:
        return done
    runs = unneeded_runs(instance, assistant, datetime.fromisoformat(done.counted_from))
    if not dry_run:
        forget_runs(instance, runs)
    return replace(done, runs=len(runs))


def lakehouse_maintain(assistant: Assistant) -> dg.JobDefinition:
    """Deletes what nothing needs any more, and merges small files; never beside a build, whose pool it shares."""

    @dg.op(name="maintain", pool=build_pool(assistant), out=dg.Out(dg.Nothing))
    def maintain_tables(
        context: dg.OpExecutionContext, lakehouse: LakehouseResource, models: ModelsResource
    ) -> dg.Output[None]:
        from llmops_core.lakehouse.table import Provenance

        provenance = Provenance(context.run.run_id)
        with failing_for_good():
            done = maintain_all(context.instance, lakehouse.open(assistant), models.settings(), assistant, provenance)
        report = {"report": dg.MetadataValue.md(done.markdown()), "result": dg.MetadataValue.json(done.to_dict())}
        return dg.Output(None, metadata=report)

    @dg.job(
        name="lakehouse_maintain",
        description="Retention: log rows, snapshots, index versions, unreferenced files, spool, runs; small files merged.",
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
