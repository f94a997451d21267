"""`llmops upgrade`."""

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout

import click
import dagster as dg

from llmops_cli.context import json_option, reports_errors
from llmops_cli.instance import INSTANCE_FILE, instance_file, is_as_shipped, prepare_instance
from llmops_cli.output import emit
from llmops_core.home import FORMAT, home_format, mark_home
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings, load_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
@json_option
@reports_errors
def command(dry_run: bool, as_json: bool) -> None:
    """Bring tables, Dagster's storage and Dagster's settings of this home to this version of the code."""
    changes, by_hand = upgrade(load_settings(), dry_run=dry_run)
    emit(
        {"dry_run": dry_run, "changes": changes, "by_hand": by_hand},
        "\n".join(_lines(changes, by_hand, dry_run=dry_run)),
        as_json=as_json,
    )


def upgrade(settings: Settings, *, dry_run: bool) -> tuple[list[str], list[str]]:
    """Do it, or with `dry_run` only look; what changes, and what is left to a person, in words."""
    made_before = home_format(settings)
    # Both refuse the home of a newer program, before anything is looked at.
    lakehouse = Lakehouse.open(settings)
    prepare_instance(settings)
    changes, by_hand = _dagster_settings(settings, dry_run=dry_run)
    for assistant in lakehouse.assistants():
        changes += lakehouse.prepare(assistant, dry_run=dry_run)
    changes += _dagster_storage(settings, dry_run=dry_run)
    if made_before is not None and made_before < FORMAT:
        changes.append(f"home: format {made_before} to {FORMAT}")
    if not dry_run:
        # Last, so that a home is marked as new only when all of it is.
        mark_home(settings)
    return changes, by_hand


def _lines(changes: list[str], by_hand: list[str], *, dry_run: bool) -> Iterator[str]:
    if changes:
        yield "Would change, without --dry-run:" if dry_run else "Changed:"
        yield from (f"  {change}" for change in changes)
        if not dry_run:
            yield "Restart `llmops dev` and gateways that ran meanwhile."
    else:
        yield "Everything is up to date." if not by_hand else "Nothing else is to be changed."
    yield from by_hand


def _dagster_settings(settings: Settings, *, dry_run: bool) -> tuple[list[str], list[str]]:
    """What changes in `dagster.yaml`, and what is left to a person who has changed it."""
    file = instance_file(settings)
    present = file.read_text(encoding="utf-8")
    if present == INSTANCE_FILE:
        return [], []
    if is_as_shipped(present):
        if not dry_run:
            file.write_text(INSTANCE_FILE, encoding="utf-8")
        return [f"{file}: as this version writes it"], []
    note = f"{file} was changed by hand, so it stays. This version would write:\n\n{INSTANCE_FILE}"
    return [], [note]


def _dagster_storage(settings: Settings, *, dry_run: bool) -> list[str]:
    """Migrate Dagster's databases."""
    # Dagster prints what it does; standard output is the command's own.
    with (
        redirect_stdout(sys.stderr),
        mapped_errors(f"Dagster's storage ({settings.dagster_home})"),
        dg.DagsterInstance.get() as instance,
    ):
        storages = {
            "runs": instance.run_storage,
            "events": instance.event_log_storage,
            "schedules": instance.schedule_storage,
        }
        changes = []
        for name, storage in storages.items():
            version = storage.alembic_version() if storage else None
            if version and version[0] != version[1]:
                changes.append(f"Dagster's storage of {name}: schema {version[0]} to {version[1]}")
        if changes and not dry_run:
            instance.upgrade()
    return changes
