"""`llmops maintain`."""

from typing import Any

import click
import dagster as dg

from jobs.maintenance import maintain_all
from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.instance import prepare_instance
from llmops_cli.output import emit
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.settings import Settings, load_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, dry_run: bool, as_json: bool) -> None:
    """Delete what the retention of assistant.yaml no longer keeps, and merge small files.

    What a running process may still read goes with the second run that finds it unneeded, 20 hours later or more.
    """
    settings, chosen = load_settings(), assistant()
    result, report = _look(settings, chosen) if dry_run else _run(settings, chosen)
    emit(result, report, as_json=as_json)


def _look(settings: Settings, assistant: Assistant) -> tuple[dict[str, Any], str]:
    prepare_instance(settings)
    provenance = Provenance("llmops maintain")
    with dg.DagsterInstance.get() as instance:
        plan = maintain_all(instance, Lakehouse.open(settings), settings, assistant, provenance, dry_run=True)
    return plan.to_dict(), plan.markdown()


def _run(settings: Settings, assistant: Assistant) -> tuple[dict[str, Any], str]:
    run_id = run_job(settings, assistant, "lakehouse_maintain").run_id
    with dg.DagsterInstance.get() as instance:
        for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT).records:
            event = record.event_log_entry.dagster_event
            assert event
            metadata = event.step_output_data.metadata
            result: Any = metadata["result"].value
            return result, str(metadata["report"].value)
    raise AssertionError(f"run {run_id} has no output")
