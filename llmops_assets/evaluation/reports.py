"""`evaluation/reports`: the scores of a release with intervals, as a table and a picture, and whether it passes the gate."""

import base64
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
    recorded_with_metadata,
)
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource

if TYPE_CHECKING:
    from llmops_core.release.gate import Verdict


PASSES_GATE = "passes_gate"


def reports(assistant: Assistant) -> dg.AssetsDefinition:
    """The report of the release that was scored last, over the present cases."""
    cases = asset_key(assistant, "evaluation", "cases")
    results = asset_key(assistant, "evaluation", "results")

    @dg.asset(
        key=asset_key(assistant, "evaluation", "reports"),
        deps=[cases, results],
        # Not blocking, since nothing is made of a report; a move is refused where it is asked for, whoever asks (moves.py).
        check_specs=[
            dg.AssetCheckSpec(
                PASSES_GATE,
                asset=asset_key(assistant, "evaluation", "reports"),
                description="The release may go to prod: evaluation.gate of assistant.yaml, on held-out cases.",
            )
        ],
        description="Metrics with intervals, by split: the evidence on which a release is judged.",
        freshness_policy=NIGHTLY,
        retry_policy=RETRIES,
        **described(assistant, "evaluation", "iceberg", "matplotlib"),
    )
    def evaluation_reports(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with a check beside it, Dagster takes the bare class alone
        from llmops_core.evaluation.cases import cases_from
        from llmops_core.evaluation.score import report_of, store_report
        from llmops_core.release.moves import assess
        from llmops_core.release.publish import follow
        from llmops_core.release.registry import Releases

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
        by = provenance(context, **snapshots)
        report = report_of(release_id, rows, known, assistant.evaluation.gate.alpha)
        report_id = store_report(lake.table(assistant.name, "evaluation_reports"), report, by)
        with failing_for_good():
            verdict = assess(lake, assistant, Releases(lake, assistant.name).get(release_id), "prod", by)
            move = follow(lake, assistant, release_id, author=f"run {context.run.run_id}", provenance=by)
        picture = base64.b64encode(report.plot()).decode()
        numbers = {name: estimate.value for name, estimate in report.metrics.items()}
        return materialized(
            report_id,
            {
                "report": dg.MetadataValue.md(report.markdown()),
                "plot": dg.MetadataValue.md(f"![scores](data:image/png;base64,{picture})"),
                "release_id": release_id,
                "gate": dg.MetadataValue.json(verdict.to_dict()),
                "move": str(move or "none"),
                **numbers,
                **{f"{name}_snapshot": snapshot for name, snapshot in snapshots.items()},
            },
            checks=[_passes_gate(verdict)],
        )

    return evaluation_reports


def _passes_gate(verdict: "Verdict") -> dg.AssetCheckResult:
    """The verdict as a check: an error if the release is worse, a warning if a person has to decide."""
    return dg.AssetCheckResult(
        check_name=PASSES_GATE,
        passed=verdict.outcome == "passed",
        severity=dg.AssetCheckSeverity.ERROR if verdict.outcome == "failed" else dg.AssetCheckSeverity.WARN,
        metadata={
            "verdict": dg.MetadataValue.md(verdict.markdown()),
            "outcome": verdict.outcome,
            "release_id": verdict.release_id,
            "against": verdict.incumbent_id or "none",
        },
    )
