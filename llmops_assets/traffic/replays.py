"""`traffic/replays`: logged requests run again, and whether all of it came out the same."""

import dagster as dg

from llmops_assets.house import (
    RETRIES,
    asset_key,
    described,
    failing_for_good,
    materialized,
    provenance,
    recorded,
)
from llmops_core.assistant import Assistant
from resources.platform import EnginesResource, LakehouseResource, ModelsResource


class ReplaysConfig(dg.Config):
    """Which requests are run again, and on what."""

    since: str | None = None
    """The first moment, ISO 8601 with zone; by default a day before `until`."""
    until: str | None = None
    """The moment after the last, ISO 8601 with zone; by default now."""
    release: str | None = None
    """A channel, number, release id, or the beginning of one, to run all of them on; by default each runs on its own."""
    answers: int = 20
    """How many of them the engine answers again; an answer takes seconds. The others are compared up to the prompt."""


def replays(assistant: Assistant) -> dg.AssetsDefinition:
    """Replays of a span of time, compared with the log."""
    requests = asset_key(assistant, "traffic", "requests")

    @dg.asset(
        key=asset_key(assistant, "traffic", "replays"),
        deps=[requests],
        description="One row a logged request that was run again: whether chunks, scores, prompt and answer are identical.",
        retry_policy=RETRIES,
        **described(assistant, "traffic", "iceberg", "polars"),
    )
    def traffic_replays(
        context: dg.AssetExecutionContext,
        config: ReplaysConfig,
        lakehouse: LakehouseResource,
        models: ModelsResource,
        engines: EnginesResource,
    ) -> dg.MaterializeResult[None]:
        from llmops_core.release.registry import Releases
        from llmops_core.replay.request import Replayer
        from llmops_core.replay.window import replay_window, store_replays, summarise, window_of

        lake = lakehouse.open(assistant)
        # No row was ever taken: then there is no snapshot, and nothing to run again.
        version = recorded(context, requests)
        snapshot = int(version) if version.isdecimal() else None
        with failing_for_good(), engines.pool() as pool:
            window = window_of(config.since, config.until)
            replayer = Replayer(lake, models.settings(), assistant.name, pool)
            rows = replay_window(
                replayer,
                lake.table(assistant.name, "traffic_requests"),
                snapshot,
                window,
                release=config.release,
                answers=config.answers,
                progress=context.log.info,
            )
        summary = summarise(window, rows, Releases(lake, assistant.name).all())
        table = lake.table(assistant.name, "traffic_replays")
        stored = store_replays(table, rows, provenance(context, traffic_requests=version))
        return materialized(
            stored,
            {
                "report": dg.MetadataValue.md(summary.markdown()),
                "result": dg.MetadataValue.json(summary.to_dict()),
                "requests": summary.requests,
                **{f"identical_{part}": share.identical for part, share in summary.total.items()},
                **({"traffic_requests_snapshot": snapshot} if snapshot else {}),
            },
        )

    return traffic_replays
