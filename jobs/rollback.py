"""`release_rollback`: a channel goes back to a release that it had before."""

import dagster as dg

from jobs.build import assistant_tag
from llmops_assets.house import failing_for_good
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource


class RollbackConfig(dg.Config):
    """What to take back, and why."""

    message: str
    """Why; it is kept with the event."""
    author: str
    """Who; Dagster does not know it."""
    channel: str = "prod"
    to: str | None = None
    """A release that the channel had before, by number or id; the one before if not given."""


def release_rollback(assistant: Assistant) -> dg.JobDefinition:
    """Moves the channel. In no pool and ahead of the queue: it must not wait behind a build."""

    @dg.op(name="roll_back", out=dg.Out(dg.Nothing))
    def roll_back(
        context: dg.OpExecutionContext, config: RollbackConfig, lakehouse: LakehouseResource, models: ModelsResource
    ) -> dg.Output[None]:
        from llmops_core.lakehouse.table import Provenance
        from llmops_core.release.rollback import apply, decide

        lake, run = lakehouse.open(assistant), Provenance(context.run.run_id)
        with failing_for_good():
            decided = decide(lake, models.settings(), assistant.name, config.channel, config.to)
            apply(lake, assistant.name, decided, author=config.author, reason=config.message, provenance=run)
        now, left = decided.release, decided.left
        said = f"{config.channel} → release {now.number} ({now.release_id}), back from release {left.number}"
        return dg.Output(None, metadata={"moved": said, "manifest": dg.MetadataValue.json(now.manifest.to_dict())})

    @dg.job(
        name="release_rollback",
        description="A channel goes back to the release that it had before, or to an earlier one. Gateways follow in seconds.",
        tags={**assistant_tag(assistant), "dagster/priority": "100"},
    )
    def release_rollback() -> None:
        roll_back()

    return release_rollback
