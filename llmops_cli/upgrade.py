"""`llmops upgrade`."""

import sys
from contextlib import redirect_stdout

import click
import dagster as dg

from llmops_cli.context import json_option, reports_errors
from llmops_cli.instance import prepare_instance
from llmops_cli.output import emit
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import load_settings


@click.command()
@json_option
@reports_errors
def command(as_json: bool) -> None:
    """Add to the tables of all assistants what this version of the code has, and migrate Dagster's storage."""
    settings = load_settings()
    lakehouse = Lakehouse.open(settings)
    changes = [change for assistant in lakehouse.assistants() for change in lakehouse.prepare(assistant)]
    prepare_instance(settings)
    # Dagster prints what it does; standard output is the command's own.
    with redirect_stdout(sys.stderr), dg.DagsterInstance.get() as instance:
        instance.upgrade()
    emit({"changes": changes}, "\n".join(changes) or "Everything is up to date.", as_json=as_json)
