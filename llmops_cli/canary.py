"""`llmops release canary …`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit, table
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import canary
from llmops_core.release.channels import Channels
from llmops_core.settings import load_settings


@click.group("canary", invoke_without_command=True)
@click.pass_context
@assistant_option
@json_option
@reports_errors
def command(context: click.Context, assistant: Any, as_json: bool) -> None:
    """Show the canary that runs: both arms, what is compared, and what it waits for."""
    if context.invoked_subcommand:
        return
    found = canary.look(Lakehouse.open(load_settings()), assistant().name)
    if found is None:
        emit({"experiment": None}, canary.NONE_RUNS, as_json=as_json)
        return
    rows = [
        (m.metric, m.state, f"{m.wealth:.3g} of {m.needed:g}", _arm(m.prod), _arm(m.canary), m.why)
        for m in found.comparison.metrics
    ]
    second = "copies" if found.experiment.plan.mode == "shadow" else "canary"
    head = ("metric", "state", "bet on harm", "prod: users, harm", f"{second}: users, harm", "why")
    emit(found.to_dict(), f"{found.headline()}\n\n{table(head, rows)}", as_json=as_json)


@command.command()
@click.option("--message", default="", help="Why.")
@assistant_option
@json_option
@reports_errors
def stop(assistant: Any, message: str, as_json: bool) -> None:
    """End the canary without a verdict; all users are answered by prod again."""
    from llmops_cli.release_moves import author

    who = author()
    ended = canary.end(
        Channels(Lakehouse.open(load_settings()), assistant().name),
        "stopped",
        author=who,
        reason=message,
        provenance=Provenance(f"llmops release canary stop by {who}"),
    )
    value = {"experiment": ended.experiment, "release_id": ended.release_id}
    emit(value, f"stopped: release {ended.release_id} meets no users any more", as_json=as_json)


def _arm(arm: Any) -> str:
    return f"{arm.users}" if arm.harm is None else f"{arm.users}, {arm.harm:.3f}"
