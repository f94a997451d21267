"""`evaluation/results`: one row a case and release; what was scored already is not scored again."""

import dagster as dg

from llmops_assets.evaluation.cases import NIGHTLY
from llmops_assets.house import (
    RETRIES,
    asset_key,
    described,
    failing_for_good,
    materialized,
    provenance,
    recorded_snapshot,
)
from llmops_core.assistant import Assistant
from resources.platform import EnginesResource, LakehouseResource, ModelsResource


class ResultsConfig(dg.Config):
    """Which release is evaluated."""

    release: str = "dev"
    """A channel, number, release id, or the beginning of one."""
    against: str = "prod"
    """The release that it will be compared with, named the same way: scored too where it was not yet. Empty: none."""


def results(assistant: Assistant) -> dg.AssetsDefinition:
    """Retrieval for all cases, answers for as many as `evaluation.answers` says."""
    cases = asset_key(assistant, "evaluation", "cases")
    manifests = asset_key(assistant, "release", "manifests")

    @dg.asset(
        key=asset_key(assistant, "evaluation", "results"),
        deps=[cases, manifests],
        description="One row a case and release: what was retrieved, what was answered, how good it was.",
        freshness_policy=NIGHTLY,
        retry_policy=RETRIES,
        **described(assistant, "evaluation", "iceberg", "polars"),
    )
    def evaluation_results(
        context: dg.AssetExecutionContext,
        config: ResultsConfig,
        lakehouse: LakehouseResource,
        models: ModelsResource,
        engines: EnginesResource,
    ) -> dg.MaterializeResult[None]:
        from llmops_core.evaluation.cases import cases_from
        from llmops_core.evaluation.score import score_release, sides
        from llmops_core.release.registry import Releases

        lake, settings = lakehouse.open(assistant), models.settings()
        cases_snapshot = recorded_snapshot(context, cases)
        # What this run itself made last: a later one is another's, of another release perhaps.
        stored = lake.table(assistant.name, "evaluation_results").snapshot_id()
        with failing_for_good(), engines.pool() as pool:
            known = cases_from(lake.table(assistant.name, "evaluation_cases").read(cases_snapshot))
            for release in sides(Releases(lake, assistant.name), config.release, config.against):
                by = provenance(context, evaluation_cases=cases_snapshot, release_manifests=release.release_id)
                context.log.info("Scoring release %s", release.number)
                done = score_release(
                    lake,
                    settings,
                    release,
                    known,
                    stored,
                    assistant.evaluation.answers,
                    pool.endpoint,
                    context.log.info,
                    by,
                )
                stored = done.snapshot
        facts = {"release": release.number, "release_id": release.release_id, "cases": len(known)}
        scored = {"retrieved": done.retrieved, "answered": done.answered}
        return materialized(stored, {**facts, **scored, "evaluation_cases_snapshot": cases_snapshot})

    return evaluation_results
