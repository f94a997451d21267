"""`llmops release …`."""

import getpass
import os
from collections.abc import Iterator
from typing import Any

import click

from llmops_cli.context import RELEASE, assistant_option, json_option, reports_errors
from llmops_cli.output import emit, table
from llmops_cli.runs import run_job
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release.channels import CHANNELS
from llmops_core.release.manifest import Manifest
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings

# Ends of the paths of manifest values that say nothing to people.
HASHES = ("index", "revision", "adapter")


@click.group()
def command() -> None:
    """Releases and the channels that point to them."""


@command.command("list")
@assistant_option
@json_option
@reports_errors
def list_releases(assistant: Any, as_json: bool) -> None:
    """List all releases, newest first, each with what changed since the one before."""
    releases = _releases(assistant().name)
    pointers = releases.channels.state()
    known = releases.all()
    rows: list[dict[str, Any]] = [
        {
            "release_id": release.release_id,
            "number": release.number,
            "channels": [name for name, pointer in pointers.items() if pointer.release_id == release.release_id],
            "created_at": release.created_at.isoformat(timespec="seconds"),
            "message": release.message,
            "changed": changes(before.manifest, release.manifest) if before else [],
        }
        for before, release in zip([None, *known], known, strict=False)
    ][::-1]
    shown = [
        (
            row["number"],
            row["release_id"][:12],
            ",".join(row["channels"]),
            row["created_at"],
            ", ".join(row["changed"]) or "the first one",
        )
        for row in rows
    ]
    head = ("number", "release", "channels", "created", "changed since the one before")
    emit(rows, table(head, shown), as_json=as_json)


def changes(before: Manifest, after: Manifest) -> list[str]:
    """What differs between two releases, as `generator.params.max_tokens 128 → 256`; hashes by their name alone."""
    old, new = dict(_leaves(before.to_dict())), dict(_leaves(after.to_dict()))
    return [
        path if path.endswith(HASHES) else f"{path} {old.get(path, 'none')} → {new.get(path, 'none')}"
        for path in dict.fromkeys([*old, *new])
        if old.get(path) != new.get(path)
    ]


@command.command(help=f"Show the manifest of a RELEASE: {RELEASE}.")
@click.argument("release")
@assistant_option
@json_option
@reports_errors
def show(assistant: Any, release: str, as_json: bool) -> None:
    """Print it with what is kept beside it."""
    import json

    found = _releases(assistant().name).get(release)
    value = {
        "release_id": found.release_id,
        "number": found.number,
        "author": found.author,
        "message": found.message,
        "created_at": found.created_at.isoformat(),
        "manifest": found.manifest.to_dict(),
    }
    emit(value, json.dumps(value, indent=2, ensure_ascii=False), as_json=as_json)


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


@command.command(help=f"Point a CHANNEL to a RELEASE: {RELEASE}. Gateways follow within seconds.")
@click.argument("release")
@click.argument("channel", type=click.Choice(CHANNELS))
@click.option("--message", default="", help="Why.")
@assistant_option
@json_option
@reports_errors
def promote(assistant: Any, release: str, channel: str, message: str, as_json: bool) -> None:
    """Move the channel, as this machine's admin."""
    releases = _releases(assistant().name)
    found = releases.get(release)
    author = _author()
    pointer = releases.channels.move(
        channel,
        found.release_id,
        action="promote",
        author=author,
        reason=message,
        provenance=Provenance(f"llmops release promote by {author}"),
    )
    value = {"channel": channel, "release_id": pointer.release_id, "number": found.number}
    emit(value, f"{channel} → release {found.number} ({found.release_id})", as_json=as_json)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of what is in a manifest: the index as a whole, and not the prompt's hash beside its version."""
    if isinstance(value, dict) and path != "index":
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}".lstrip("."))
    elif path != "prompt.hash":
        yield path, value


def _author() -> str:
    """Who promotes: in a container, the user of a process may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _releases(assistant: str) -> Releases:
    return Releases(Lakehouse.open(load_settings()), assistant)
