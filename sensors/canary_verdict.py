"""`canary_verdict`: looks at the log of a canary that runs, says what it waits for, and has it ended at a verdict.

What it sees is a function of the log and the clock, so it keeps no state, and the run that it launches looks again by itself.
"""

import dagster as dg

from jobs.build import CAUSE_TAG
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

# The log reaches the lakehouse every five minutes; a look reads it anew.
EVERY_S = 60
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
    ) -> dg.RunRequest | dg.SkipReason:
        from llmops_core.release.canary import NONE_RUNS, look

        found = look(lakehouse.open(assistant), assistant.name)
        if found is None:
            return dg.SkipReason(NONE_RUNS)
        if found.comparison.outcome == "waiting":
            return dg.SkipReason(found.headline())
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
