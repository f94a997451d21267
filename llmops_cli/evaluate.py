"""`llmops evaluate`."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import polars as pl

from llmops_cli.context import assistant_option, json_option, release_option, reports_errors
from llmops_cli.output import emit, short, table
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.errors import ConfigError
from llmops_core.evaluation.cases import cases_from
from llmops_core.evaluation.report import Report
from llmops_core.evaluation.score import report_of
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.gate import Verdict
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings

WORST_SHOWN = 10
CELL_CHARACTERS = 40
# Of the words of an answer and of the right one, fewer than half are shared.
POOR_F1 = 0.5
GOLD = ("gold_document_ids", "answers")


@click.command()
@release_option("Which release is scored", "dev", "what was built last and may be promoted next")
@click.option(
    "--against",
    metavar="CHANNEL",
    type=click.Choice(["prod"]),
    help="Also score the release on prod, and say whether this one passes the gate of assistant.yaml against it.",
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="With --against: exit code 1 if the gate fails (not if it is inconclusive).",
)
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, release: str, against: str | None, fail_on_regression: bool, as_json: bool) -> None:
    """Score a release on the labelled cases; a case that was scored for it already is not scored again."""
    if fail_on_regression and not against:
        raise click.UsageError("--fail-on-regression needs what to compare with: --against prod")
    settings, chosen = load_settings(), assistant()
    report, verdict = evaluate_against(settings, chosen, release, against or "")
    poor = poor_cases(Lakehouse.open(settings), chosen.name, report.release_id)
    worst = poor.head(WORST_SHOWN).to_dicts()
    value = {
        **report.summary(),
        "poor": {"cases": poor.height, "worst": worst},
        "held_out_uses": vars(verdict.uses),
        **({"gate": verdict.to_dict()} if against else {}),
    }
    gate = verdict_table(verdict) if against else f"The {verdict.uses}."
    poorly = _poor(worst, poor.height, f"{chosen.name}.evaluation_results")
    emit(value, f"{report.table()}\n\n{gate}\n\n{poorly}", as_json=as_json)
    if fail_on_regression and verdict.outcome == "failed":
        sys.exit(1)


def verdict_table(verdict: Verdict) -> str:
    """The gate's verdict for a terminal."""
    head, *rows = verdict.cells()
    parts = (verdict.headline(), table(head, rows) if rows else "", f"The {verdict.uses}.")
    return "\n\n".join(part for part in parts if part)


def evaluate(settings: Settings, assistant: Assistant, release: str = "dev") -> Report:
    """Run `evaluation_score` and read the report back."""
    return evaluate_against(settings, assistant, release, "")[0]


def evaluate_against(settings: Settings, assistant: Assistant, release: str, against: str) -> tuple[Report, Verdict]:
    """Like `evaluate`, with what the gate said; `against` names a release that is scored too, empty for none."""
    if assistant.evaluation.cases is None:
        raise ConfigError(
            f"{assistant.folder / 'assistant.yaml'} names no case file. Write one (a JSON object a line with case_id,"
            " question, gold_document_ids) and set evaluation.cases to it."
        )
    lake = Lakehouse.open(settings)
    found = Releases(lake, assistant.name).get(release)
    named = {"config": {"release": found.release_id, "against": against}}
    done = run_job(
        settings, assistant, "evaluation_score", config={"ops": {f"{assistant.name}__evaluation__results": named}}
    )
    verdict = Verdict.from_dict(done.assets["evaluation/reports"]["gate"])
    cases = cases_from(lake.table(assistant.name, "evaluation_cases").read())
    rows = lake.table(assistant.name, "evaluation_results").read()
    return report_of(found.release_id, rows, cases, assistant.evaluation.gate.alpha), verdict


def poor_cases(lake: Lakehouse, assistant: str, release_id: str) -> pl.DataFrame:
    """The present cases of split `tune` that the release failed, worst first: with an error, a missed document, a poor answer.

    What a person has read is no longer held out; how many held-out cases failed is in the report.
    """
    known = lake.table(assistant, "evaluation_cases").read().select("case_id", "case_hash", "split", "question", *GOLD)
    scored = lake.table(assistant, "evaluation_results").read().filter(pl.col("release_id") == release_id).drop("split")
    failed, missed = pl.col("error").is_not_null(), pl.col("recall_at_5") < 1
    poorly_answered = pl.col("empty") | (pl.col("f1") < POOR_F1)
    return (
        scored.join(known, on=["case_id", "case_hash"])
        .filter((pl.col("split") == "tune") & (failed | missed | poorly_answered).fill_null(value=False))
        .sort(~failed, "recall_at_5", "f1", "ndcg_at_10", "case_id", nulls_last=True)
        .select("case_id", "question", *GOLD, "retrieved_document_ids", "answer", "error")
    )


def _poor(worst: Sequence[Mapping[str, Any]], cases: int, where: str) -> str:
    """The worst cases as a table, and where all of them are."""
    if not worst:
        return "Every case of split tune found its documents, and no answer to one is poor."
    rows = [
        (
            case["question"],
            ", ".join(case["gold_document_ids"]),
            ", ".join(case["retrieved_document_ids"] or ()) or "nothing",
            case["error"] or case["answer"] or "",
        )
        for case in worst
    ]
    cells = [[short(cell, CELL_CHARACTERS) for cell in row] for row in rows]
    return (
        f"Worst cases of split tune: {len(worst)} of {cases} that missed a document, failed or were answered poorly"
        f" (all: split tune in table {where})\n\n"
        f"{table(('question', 'wanted', 'found', 'answer or error'), cells)}"
    )
