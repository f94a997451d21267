"""`release_promote`: a person moves a channel from the Dagster UI, through the same gate as a command."""

import dagster as dg

from jobs.build import assistant_tag
from llmops_assets.house import failing_for_good
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


class PromoteConfig(dg.Config):
    """Which release goes where, who says so, and why."""

    release: str
    """A channel, number, release id, or the beginning of one."""
    author: str
    """Who; Dagster does not know it."""
    channel: str = "prod"
    message: str = ""
    """Why; the gate asks for it where it cannot decide."""
    override: bool = False
    """Also if the gate or a rejection says no; `message` says why."""


def release_promote(assistant: Assistant) -> dg.JobDefinition:
    """Moves the channel, or fails with what the gate says and what to do."""

    @dg.op(name="promote", out=dg.Out(dg.Nothing))
    def promote_release(
        context: dg.OpExecutionContext, config: PromoteConfig, lakehouse: LakehouseResource
    ) -> dg.Output[None]:
        from llmops_core.lakehouse.table import Provenance
        from llmops_core.release.moves import Mover, promote

        by = Mover(config.author, config.message, override=config.override)
        with failing_for_good():
            moved = promote(
                lakehouse.open(assistant), assistant, config.release, config.channel, by, Provenance(context.run.run_id)
            )
        verdict = moved.verdict.markdown() if moved.verdict else "none was asked for"
        said = f"{moved.channel} → release {moved.release.number} ({moved.release.release_id})"
        return dg.Output(None, metadata={"moved": said, "verdict": dg.MetadataValue.md(verdict)})

    @dg.job(
        name="release_promote",
        description="A channel is pointed to a release, if the gate of assistant.yaml lets it. Gateways follow in seconds.",
        tags={**assistant_tag(assistant), "dagster/priority": "100"},
    )
    def release_promote() -> None:
        promote_release()

    return release_promote
