"""`traffic_replay`: the log of a span of time, run again."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops_assets.house import asset_key
from llmops_core.assistant import Assistant


def traffic_replay(assistant: Assistant) -> UnresolvedAssetJobDefinition:
    """Takes what the gateways have shipped, then runs the requests of the run config's window again."""
    keys = [asset_key(assistant, "traffic", noun) for noun in ("requests", "replays")]
    return dg.define_asset_job(
        "traffic_replay",
        selection=dg.AssetSelection.assets(*keys),
        description="Logged requests run again on what they ran on: chunks, scores, prompts and answers compared.",
    )
