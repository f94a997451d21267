"""`llmops release …`: what there is; what moves it is in release_moves.py."""

import json
from typing import Any

import click

from llmops_cli import canary, release_moves, rollback
from llmops_cli.context import RELEASE, assistant_option, json_option, reports_errors
from llmops_cli.output import emit, short, table
from llmops_cli.runs import run_job
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.models.reference import licence_of
from llmops_core.release.diff import changes, difference, shown
from llmops_core.release.history import Entry, history
from llmops_core.release.manifest import Manifest
from llmops_core.release.objections import rejection
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings

# Characters of a value or reason in a table.
SHOWN = 60


@click.group()
def command() -> None:
    """Releases and the channels that point to them."""


for other in (*release_moves.COMMANDS, rollback.command, canary.command):
    command.add_command(other)


@command.command("list")
@assistant_option
@json_option
@reports_errors
def list_releases(assistant: Any, as_json: bool) -> None:
    """List all releases, newest first, each with what changed since the one before and what the gate said last."""
    releases = _releases(assistant().name)
    pointers, events = releases.channels.state(), releases.channels.events()
    known = releases.all()
    rows: list[dict[str, Any]] = [
        {
            "release_id": release.release_id,
            "number": release.number,
            "channels": [name for name, pointer in pointers.items() if pointer.release_id == release.release_id],
            "created_at": release.created_at.isoformat(timespec="seconds"),
            "message": release.message,
            "changed": changes(before.manifest, release.manifest) if before else [],
            "gate": next((e.outcome for e in history(events, release.release_id)[::-1] if e.outcome), None),
            "rejected": rejection(events, [release.release_id], "prod") is not None,
        }
        for before, release in zip([None, *known], known, strict=False)
    ][::-1]
    cells = [
        (
            row["number"],
            row["release_id"][:12],
            ",".join(row["channels"]),
            row["created_at"],
            "rejected" if row["rejected"] else row["gate"] or "-",
            ", ".join(row["changed"]) or "the first one",
        )
        for row in rows
    ]
    head = ("number", "release", "channels", "created", "gate", "changed since the one before")
    emit(rows, table(head, cells), as_json=as_json)


@command.command(help=f"Show the manifest of a RELEASE, its history and the licences of its models: {RELEASE}.")
@click.argument("release")
@assistant_option
@json_option
@reports_errors
def show(assistant: Any, release: str, as_json: bool) -> None:
    """Print it with what is kept beside it."""
    releases = _releases(assistant().name)
    found = releases.get(release)
    value = {
        "release_id": found.release_id,
        "number": found.number,
        "author": found.author,
        "message": found.message,
        "created_at": found.created_at.isoformat(),
        "manifest": found.manifest.to_dict(),
        "licences": licences(found.manifest),
        "history": [_entry(entry) for entry in history(releases.channels.events(), found.release_id)],
    }
    emit(value, json.dumps(value, indent=2, ensure_ascii=False), as_json=as_json)


def licences(manifest: Manifest) -> dict[str, str | None]:
    """Role → licence of its model's weights; None where nobody but its owner knows."""
    generator, reranker = manifest.generator, manifest.retrieval.reranker
    roles = {"generator": licence_of(generator.model) if generator.engine == "local" else None}
    roles["embedder"] = licence_of(manifest.embedder.model)
    return {**roles, "reranker": licence_of(reranker.model)} if reranker else roles


@command.command(help=f"Show what release B has otherwise than release A: {RELEASE}.")
@click.argument("a")
@click.argument("b")
@assistant_option
@json_option
@reports_errors
def diff(assistant: Any, a: str, b: str, as_json: bool) -> None:
    """Print values that differ, and the prompts as a unified diff."""
    releases = _releases(assistant().name)
    found = difference(releases, releases.get(a), releases.get(b))
    before, after = found.before, found.after
    value = {
        "a": before.release_id,
        "b": after.release_id,
        "changed": {path: {"a": old, "b": new} for path, old, new in found.values},
        "prompt": found.prompt,
    }
    head = ("changed", f"release {before.number}", f"release {after.number}")
    cells = [(path, *(short(shown(side), SHOWN) for side in sides)) for path, *sides in found.values]
    values = table(head, cells) if cells else f"Release {before.number} and release {after.number} are the same."
    emit(value, "\n\n".join(part for part in (values, found.prompt) if part), as_json=as_json)


@command.command("history", help=f"Who moved what, when, why, and on which report; of one RELEASE only: {RELEASE}.")
@click.argument("release", required=False)
@assistant_option
@json_option
@reports_errors
def show_history(assistant: Any, release: str | None, as_json: bool) -> None:
    """List the events, oldest first."""
    releases = _releases(assistant().name)
    numbers = {known.release_id: known.number for known in releases.all()}
    entries = history(releases.channels.events(), releases.get(release).release_id if release else None)
    cells = [
        (
            entry.at.isoformat(timespec="seconds"),
            entry.action,
            numbers.get(entry.release_id or "", "none"),
            entry.channel or "",
            entry.author,
            entry.outcome or "-",
            (entry.report_id or "-")[:12],
            short(entry.reason, SHOWN),
        )
        for entry in entries
    ]
    head = ("when", "action", "release", "channel", "who", "gate", "report", "why")
    emit([_entry(entry) for entry in entries], table(head, cells), as_json=as_json)


@command.command()
@assistant_option
@json_option
@reports_errors
def create(assistant: Any, as_json: bool) -> None:
    """Make a release of the newest index, the present prompt and assistant.yaml; it goes to dev."""
    chosen = assistant()
    done = run_job(load_settings(), chosen, "release_create")
    facts = done.assets["release/manifests"]
    value = {"release_id": facts["data_version"], "release": facts["release"]}
    emit(value, f"release {facts['release']}: {facts['data_version']}", as_json=as_json)


def _entry(entry: Entry) -> dict[str, Any]:
    return {**vars(entry), "at": entry.at.isoformat()}


def _releases(assistant: str) -> Releases:
    return Releases(Lakehouse.open(load_settings()), assistant)
