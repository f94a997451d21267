"""`llmops ingest`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit, facts
from llmops_cli.runs import run_job
from llmops_core.settings import load_settings


@click.command()
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, as_json: bool) -> None:
    """Move what gateways have shipped of the request log into Iceberg now, instead of within five minutes."""
    done = run_job(load_settings(), assistant(), "traffic_ingest")
    value = {noun: done.assets[f"traffic/{noun}"]["new_rows"] for noun in ("requests", "feedback")}
    emit(value, facts(value), as_json=as_json)
