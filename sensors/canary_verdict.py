"""`canary_verdict`: looks at the log of a canary that runs, says what it waits for, and has it ended at a verdict.

What it sees is a function of the log and the clock, and the run that it launches looks again by itself. The cursor only saves
reading a week of the log anew when nothing has come since: what was said then is said again.
"""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from jobs.build import CAUSE_TAG
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

EVERY_S = 60
# The hours that are left are told anew after so long.
REPEATED = timedelta(minutes=10)
MAX_ATTEMPTS = 3


def canary_verdict(assistant: Assistant, job: dg.JobDefinition) -> dg.SensorDefinition:
    """One run at a verdict; one that failed is tried again."""

    @dg.sensor(
        name="canary_verdict",
        job=job,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Compares the canary with prod, and launches canary_end when it passed, did harm, or ran out of time.",
    )
    def canary_verdict(
        context: dg.SensorEvaluationContext, lakehouse: LakehouseResource
    ) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
        from llmops_core.release.canary import NONE_RUNS, look, read_at

        lake, now = lakehouse.open(assistant), datetime.now(UTC)
        read = read_at(lake, assistant.name)
        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        if seen.get("read") == read and now < datetime.fromisoformat(seen["until"]):
            return dg.SkipReason(seen["said"])
        found = look(lake, assistant.name, now)
        if found is None:
            return dg.SkipReason(NONE_RUNS)
        if found.comparison.outcome == "waiting":
            until = min(now + REPEATED, now + timedelta(hours=found.comparison.hours_left))
            cursor = {"read": read, "until": until.isoformat(), "said": found.headline()}
            return dg.SensorResult(skip_reason=found.headline(), cursor=json.dumps(cursor))
        experiment = found.experiment.experiment
        cause = {CAUSE_TAG: f"{assistant.name}:{experiment}"}
        runs = context.instance.get_runs(dg.RunsFilter(job_name=job.name, tags=cause))
        if runs and not runs[0].is_finished:
            return dg.SkipReason(f"Run {runs[0].run_id} ends it. {found.headline()}")
        if sum(run.is_failure for run in runs) >= MAX_ATTEMPTS:
            return dg.SkipReason(
                f"Ending it failed {MAX_ATTEMPTS} times: look at run {runs[0].run_id}, then launch {job.name}."
                f" {found.headline()}"
            )
        return dg.RunRequest(f"{experiment}:{len(runs) + 1}", tags=cause)

    return canary_verdict
