"""`evaluation_score`: cases, results and report of a release, and its nightly schedule."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops_assets.house import asset_key
from llmops_core.assistant import Assistant

CRON = "0 2 * * *"


def evaluation_score(assistant: Assistant) -> UnresolvedAssetJobDefinition:
    """Scores a release; run config names it, the newest on dev by default."""
    keys = [asset_key(assistant, "evaluation", noun) for noun in ("cases", "results", "reports")]
    return dg.define_asset_job(
        "evaluation_score",
        selection=dg.AssetSelection.assets(*keys),
        description="Retrieval on all cases, answers on some: per-case results and a report with intervals.",
    )


def evaluation_nightly(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Every night at two."""
    return dg.ScheduleDefinition(
        name="evaluation_nightly",
        job=job,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Scores the newest release ({CRON}); cases that were scored for it already are not scored again.",
    )
