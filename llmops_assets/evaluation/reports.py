"""`evaluation/reports`: the scores of a release with intervals, as a table and a picture."""

import base64

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
    recorded_with_metadata,
)
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


def reports(assistant: Assistant) -> dg.AssetsDefinition:
    """The report of the release that was scored last, over the present cases."""
    cases = asset_key(assistant, "evaluation", "cases")
    results = asset_key(assistant, "evaluation", "results")

    @dg.asset(
        key=asset_key(assistant, "evaluation", "reports"),
        deps=[cases, results],
        description="Metrics with intervals, by split: the evidence on which a release is judged.",
        freshness_policy=NIGHTLY,
        retry_policy=RETRIES,
        **described(assistant, "evaluation", "iceberg", "matplotlib"),
    )
    def evaluation_reports(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource
    ) -> dg.MaterializeResult[None]:
        from llmops_core.evaluation.cases import cases_from
        from llmops_core.evaluation.score import report_of, store_report

        lake = lakehouse.open(assistant)
        results_snapshot, scored = recorded_with_metadata(context, results)
        # Not by its channel: that may have been moved since.
        release_id = scored["release_id"]
        snapshots = {
            "evaluation_cases": recorded_snapshot(context, cases),
            "evaluation_results": int(results_snapshot),
        }
        with failing_for_good():
            known = cases_from(lake.table(assistant.name, "evaluation_cases").read(snapshots["evaluation_cases"]))
            rows = lake.table(assistant.name, "evaluation_results").read(snapshots["evaluation_results"])
        report = report_of(release_id, rows, known, assistant.evaluation.gate.alpha)
        report_id = store_report(
            lake.table(assistant.name, "evaluation_reports"), report, provenance(context, **snapshots)
        )
        picture = base64.b64encode(report.plot()).decode()
        numbers = {name: estimate.value for name, estimate in report.metrics.items()}
        return materialized(
            report_id,
            {
                "report": dg.MetadataValue.md(report.markdown()),
                "plot": dg.MetadataValue.md(f"![scores](data:image/png;base64,{picture})"),
                "release_id": release_id,
                **numbers,
                **{f"{name}_snapshot": snapshot for name, snapshot in snapshots.items()},
            },
        )

    return evaluation_reports
