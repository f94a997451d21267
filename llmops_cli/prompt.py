"""`llmops prompt …`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit, table
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.prompts.versions import PromptVersion
from llmops_core.release.prompt_uri import find_prompt
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings


@click.group()
def command() -> None:
    """The versions of prompts."""


@command.command("list")
@assistant_option
@json_option
@reports_errors
def list_versions(assistant: Any, as_json: bool) -> None:
    """List all versions, by name and number."""
    versions = _releases(assistant).prompts.all()
    cells = [(_uri(v), v.created_at.isoformat(timespec="seconds"), v.author, v.message) for v in versions]
    emit([_value(v) for v in versions], table(("prompt", "created", "who", "why"), cells), as_json=as_json)


@command.command()
@click.argument("uri", metavar="URI")
@assistant_option
@json_option
@reports_errors
def show(assistant: Any, uri: str, as_json: bool) -> None:
    """Print the template that URI names: prompts:/NAME/NUMBER, or prompts:/NAME@CHANNEL for that of a channel's release."""
    found = find_prompt(_releases(assistant), uri)
    emit({**_value(found), "text": found.text}, found.text.removesuffix("\n"), as_json=as_json)


def _value(version: PromptVersion) -> dict[str, Any]:
    values = {**vars(version), "uri": _uri(version), "created_at": version.created_at.isoformat()}
    values.pop("text")
    return values


def _uri(version: PromptVersion) -> str:
    return f"prompts:/{version.name}/{version.version}"


def _releases(assistant: Any) -> Releases:
    return Releases(Lakehouse.open(load_settings()), assistant().name)
