"""`llmops release promote|approve|reject`: what asks for the gate's verdict (see llmops_core/release/moves.py)."""

import getpass
import os
from typing import Any

import click

from llmops_cli.context import RELEASE, assistant_option, json_option, reports_errors
from llmops_cli.evaluate import evaluate, verdict_table
from llmops_cli.output import emit
from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import moves
from llmops_core.release.channels import CHANNELS
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings

message_option = click.option("--message", default="", metavar="WHY", help="Why; it is kept.")
override_option = click.option(
    "--override", is_flag=True, help="Also if the gate or a rejection says no; --message says why."
)


@click.command(
    help=f"Point a CHANNEL to a RELEASE: {RELEASE}. Gateways follow within seconds. For staging and prod the gate of"
    " assistant.yaml decides; what was not evaluated yet is evaluated first."
)
@click.argument("release")
@click.argument("channel", type=click.Choice(CHANNELS))
@message_option
@override_option
@assistant_option
@json_option
@reports_errors
def promote(assistant: Any, release: str, channel: str, message: str, override: bool, as_json: bool) -> None:
    """Move the channel, as this machine's admin."""
    chosen, by = assistant(), moves.Mover(author(), message, override=override)
    lakehouse, provenance = Lakehouse.open(load_settings()), Provenance(f"llmops release promote by {by.author}")
    if not override:
        _evaluate_what_is_not(lakehouse, chosen, release, channel, provenance)
    _say(moves.promote(lakehouse, chosen, release, channel, by, provenance), as_json=as_json)


@click.command(
    help=f"Say that a RELEASE may serve: {RELEASE}. If the gate of assistant.yaml lets it, some users meet it first, as the"
    " canary; one that nothing can be compared with goes to prod. What was not evaluated yet is evaluated first."
)
@click.argument("release")
@message_option
@override_option
@assistant_option
@json_option
@reports_errors
def approve(assistant: Any, release: str, message: str, override: bool, as_json: bool) -> None:
    """Record the approval, and begin the canary or move prod."""
    chosen, by = assistant(), moves.Mover(author(), message, override=override)
    lakehouse, provenance = Lakehouse.open(load_settings()), Provenance(f"llmops release approve by {by.author}")
    if not override:
        _evaluate_what_is_not(lakehouse, chosen, release, "prod", provenance)
    _say(moves.approve(lakehouse, chosen, release, by, provenance), as_json=as_json)


@click.command(help=f"Say that a RELEASE must not serve: {RELEASE}. From then on it is promoted with --override alone.")
@click.argument("release")
@click.option("--message", required=True, metavar="WHY", help="Why; it is kept.")
@assistant_option
@json_option
@reports_errors
def reject(assistant: Any, release: str, message: str, as_json: bool) -> None:
    """Record the rejection."""
    by = moves.Mover(author(), message)
    provenance = Provenance(f"llmops release reject by {by.author}")
    found = moves.reject(Lakehouse.open(load_settings()), assistant(), release, by, provenance)
    value = {"release_id": found.release_id, "number": found.number, "action": "reject"}
    emit(value, f"rejected: release {found.number} ({found.release_id})", as_json=as_json)


COMMANDS = (promote, approve, reject)


def author() -> str:
    """Who asks: in a container, the user of a process may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _evaluate_what_is_not(
    lakehouse: Lakehouse, assistant: Assistant, reference: str, channel: str, provenance: Provenance
) -> None:
    """Evaluate the releases that the gate will look at, as far as that is outstanding."""
    if channel not in moves.GATED:
        return
    release = Releases(lakehouse, assistant.name).get(reference)
    for release_id in moves.assess(lakehouse, assistant, release, channel, provenance).unscored:
        evaluate(load_settings(), assistant, release_id)


def _say(moved: moves.Moved, *, as_json: bool) -> None:
    release, verdict = moved.release, moved.verdict
    value = {
        "channel": moved.channel,
        "release_id": release.release_id,
        "number": release.number,
        "action": moved.action,
        "gate": verdict.to_dict() if verdict else None,
    }
    text = f"{moved.channel} → release {release.number} ({release.release_id})"
    emit(value, f"{text}\n\n{verdict_table(verdict)}" if verdict else text, as_json=as_json)
