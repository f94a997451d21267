"""`llmops maintain`."""

from dataclasses import asdict
from typing import Any

import click
import dagster as dg

from llmops_assets.house import recorded_snapshots
from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit
from llmops_cli.runs import prepare_instance, run_job
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.maintenance import maintain
from llmops_core.settings import load_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, dry_run: bool, as_json: bool) -> None:
    """Delete what the retention of assistant.yaml no longer keeps."""
    settings, chosen = load_settings(), assistant()
    if not dry_run:
        run_job(settings, chosen, "lakehouse_maintain")
        emit({"done": True}, "Done; the run's report is in the Dagster UI.", as_json=as_json)
        return
    prepare_instance(settings)
    with dg.DagsterInstance.get() as instance:
        recorded = recorded_snapshots(instance, chosen)
    plan = maintain(Lakehouse.open(settings), settings, chosen, recorded, dry_run=True)
    emit(asdict(plan), plan.markdown(), as_json=as_json)
