"""`canary_end`: the verdict on a canary carried out."""

import dagster as dg

from jobs.build import assistant_tag
from llmops_assets.house import RETRIES, failing_for_good
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


def canary_end(assistant: Assistant) -> dg.JobDefinition:
    """Looks at the log once more, and moves prod to the canary's release or takes the canary back; nothing without a verdict."""

    @dg.op(name="conclude", retry_policy=RETRIES, out=dg.Out(dg.Nothing))
    def conclude_canary(context: dg.OpExecutionContext, lakehouse: LakehouseResource) -> dg.Output[None]:
        from llmops_core.lakehouse.table import Provenance
        from llmops_core.release.canary import NONE_RUNS, conclude

        lake, run_id = lakehouse.open(assistant), context.run.run_id
        with failing_for_good():
            look = conclude(lake, assistant.name, author=f"run {run_id}", provenance=Provenance(run_id))
        if look is None:
            return dg.Output(None, metadata={"verdict": NONE_RUNS})
        report = dg.MetadataValue.json(look.to_dict())
        return dg.Output(None, metadata={"verdict": dg.MetadataValue.text(look.headline()), "experiment": report})

    @dg.job(
        name="canary_end",
        description="Passed: prod moves to the canary's release. Harm, or too little data in time: the canary is taken back.",
        tags={**assistant_tag(assistant), "dagster/priority": "100"},
    )
    def canary_end() -> None:
        conclude_canary()

    return canary_end
