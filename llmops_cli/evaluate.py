"""`llmops evaluate`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, release_option, reports_errors
from llmops_cli.output import emit
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.errors import ConfigError
from llmops_core.evaluation.cases import cases_from
from llmops_core.evaluation.report import Report
from llmops_core.evaluation.score import report_of
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings


@click.command()
@release_option("Which release is scored", "dev", "what was built last and may be promoted next")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, release: str, as_json: bool) -> None:
    """Score a release on the labelled cases; a case that was scored for it already is not scored again."""
    report = evaluate(load_settings(), assistant(), release)
    emit(report.summary(), report.table(), as_json=as_json)


def evaluate(settings: Settings, assistant: Assistant, release: str = "dev") -> Report:
    """Run `evaluation_score` and read the report back."""
    if assistant.evaluation.cases is None:
        raise ConfigError(
            f"{assistant.folder / 'assistant.yaml'} names no case file. Write one (a JSON object a line with case_id,"
            " question, gold_document_ids) and set evaluation.cases to it."
        )
    lake = Lakehouse.open(settings)
    found = Releases(lake, assistant.name).get(release)
    named = {"config": {"release": found.release_id}}
    run_job(settings, assistant, "evaluation_score", config={"ops": {f"{assistant.name}__evaluation__results": named}})
    cases = cases_from(lake.table(assistant.name, "evaluation_cases").read())
    rows = lake.table(assistant.name, "evaluation_results").read()
    return report_of(found.release_id, rows, cases, assistant.evaluation.gate.alpha)
