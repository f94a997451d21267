"""`evaluation/results`: one row a case and release; what was scored already is not scored again."""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import polars as pl


class ResultsConfig(dg.Config):
    """Which release is evaluated."""

    release: str = "dev"
    """A channel, number, release id, or the beginning of one."""


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
        from llmops_core.answering.loaded import ModelPool, load_release
        from llmops_core.evaluation.cases import cases_from
        from llmops_core.evaluation.score import outstanding, score, store_results
        from llmops_core.release.registry import Releases

        lake = lakehouse.open(assistant)
        cases_snapshot = recorded_snapshot(context, cases)
        table = lake.table(assistant.name, "evaluation_results")
        # What this run itself made last: a later one is another's, of another release perhaps.
        stored = table.snapshot_id()
        with failing_for_good(), engines.pool() as pool:
            releases = Releases(lake, assistant.name)
            release = releases.get(config.release)
            known = cases_from(lake.table(assistant.name, "evaluation_cases").read(cases_snapshot))
            work = outstanding(table, stored, release.release_id, known, assistant.evaluation.answers)
            if work.retrieve:
                settings = models.settings()
                loaded = load_release(settings, ModelPool(settings), release.manifest, releases.prompt_text(release))
                endpoint = pool.endpoint(release.manifest.generator) if work.answer else None
                by = provenance(context, evaluation_cases=cases_snapshot, release_manifests=release.release_id)

                def keep(rows: "pl.DataFrame") -> None:
                    nonlocal stored
                    stored = store_results(table, release.release_id, rows, by)

                score(loaded, endpoint, work, context.log.info, keep)
        facts = {"release": release.number, "release_id": release.release_id, "cases": len(known)}
        scored = {"retrieved": len(work.retrieve), "answered": len(work.answer)}
        return materialized(stored, {**facts, **scored, "evaluation_cases_snapshot": cases_snapshot})

    return evaluation_results
