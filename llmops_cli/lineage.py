"""`llmops lineage`."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.dev import UI_HOST, UI_PORT
from llmops_cli.output import emit, facts, short, table, url_of
from llmops_cli.replay import find_row
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lineage.document import lineage_of_document
from llmops_core.lineage.request import lineage_of_request
from llmops_core.settings import load_settings

UI = url_of(UI_HOST, UI_PORT)
HASH_CHARACTERS = 12
RUN_CHARACTERS = 8
TEXT_CHARACTERS = 80


@click.command()
@click.argument("request_id", required=False)
@click.option("--document", metavar="ID", help="Instead: which releases and requests used this document.")
@click.option("--version", metavar="HASH", help="Of the document, the version whose hash begins so.")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, request_id: str | None, document: str | None, version: str | None, as_json: bool) -> None:
    """Print what an answer came from: release, prompt, models, index, documents, and the runs that wrote them.

    With --document the other way: the versions of a document, and the releases and requests that used each. Links lead into the
    Dagster UI (llmops dev).
    """
    if (request_id is None) == (document is None) or (version and not document):
        raise click.UsageError("Name a request, or a document with --document ID (and --version HASH).")
    settings, name = load_settings(), assistant().name
    lakehouse = Lakehouse.open(settings)
    if document:
        value = _with_links(lineage_of_document(lakehouse, name, document, version), name)
        text = _document(value)
    else:
        value = _with_links(lineage_of_request(lakehouse, name, find_row(settings, name, str(request_id))), name)
        text = _request(value)
    emit(value, text, as_json=as_json)


def run_url(run_id: object) -> str | None:
    """Where the UI shows a run; None for what a command wrote by itself, which is no run."""
    try:
        return f"{UI}/runs/{uuid.UUID(str(run_id))}"
    except ValueError:
        return None


def _with_links(value: Any, assistant: str) -> Any:
    """The value with `run_url` beside each `run_id`, and `asset_url` beside each `table`."""
    if isinstance(value, list):
        return [_with_links(inner, assistant) for inner in value]
    if not isinstance(value, Mapping):
        return value
    links = {"run_url": run_url(value["run_id"])} if value.get("run_id") else {}
    if "table" in value:
        links["asset_url"] = f"{UI}/assets/{assistant}/{value['table'].replace('_', '/', 1)}"
    return {**{key: _with_links(inner, assistant) for key, inner in value.items()}, **links}


def _request(value: Mapping[str, Any]) -> str:
    request = value["request"]
    asked = {
        "request": f"{request['request_id']}, {request['started_at']}, {request['user']} asked {request['model']}",
        "question": short(request["query"] or "", TEXT_CHARACTERS),
        "answer": short(
            request["answer"] or f"none: {request['status']} {request['error_type'] or ''}", TEXT_CHARACTERS
        ),
    }
    if value["release"] is None:
        return f"{facts(asked)}\n\nIt came to no release."
    return "\n\n".join(
        [
            facts({**asked, **_made_with(value)}),
            table(("read", "snapshot", "written", "by run"), map(_snapshot, value["index"]["snapshots"])),
            table(
                ("chunk", "score", "of document", "version", "from", "document by run", "chunk by run"),
                map(_chunk, value["chunks"]),
            ),
            _feedback(value["feedback"]),
            _links(value),
        ]
    )


def _made_with(value: Mapping[str, Any]) -> dict[str, str]:
    release, prompt, generator, index = (value[part] for part in ("release", "prompt", "generator", "index"))
    moved = release["moved"]
    on = (
        f"{moved['action']} to {moved['channel']} {moved['at']} by {moved['author']}: {moved['reason']}"
        if moved
        else ""
    )
    return {
        "release": f"{release['number']} ({release['release_id']}), made {release['created_at']}: {release['message']}",
        "on channel": on
        or f"{value['request']['channel']}: named in the request, or moved there by nothing that is recorded",
        "prompt": f"{prompt['name']} version {prompt['version']} ({prompt['hash'][:HASH_CHARACTERS]}), {prompt['message']}",
        "generator": f"{generator['model']}, {generator['revision']}",
        "adapter": value["adapter"] or "none",
        "embedder": f"{value['embedder']['model']}, {value['embedder']['revision']}",
        "index version": f"{index['version']}, {index['rows']} chunks, built {index['built_at']} by {_by(index)}",
    }


def _snapshot(read: Mapping[str, Any]) -> tuple[str, ...]:
    return read["table"], read["snapshot"], read["at"] or read["state"], _by(read)


def _chunk(chunk: Mapping[str, Any]) -> tuple[str, ...]:
    document = chunk["document"]
    return (
        chunk["chunk_id"][:HASH_CHARACTERS],
        f"{chunk['score']:.4f}",
        chunk["document_id"],
        (chunk["document_hash"] or "no longer retained")[:HASH_CHARACTERS],
        short(f"{document.get('source') or '?'} {document.get('uri') or ''}", TEXT_CHARACTERS),
        _by(document),
        _by(chunk),
    )


def _by(written: Mapping[str, Any]) -> str:
    """A run by the beginning of its id, a command by its name."""
    run_id = str(written.get("run_id") or "?")
    return run_id[:RUN_CHARACTERS] if written.get("run_url") else run_id


def _links(value: Any) -> str:
    """Every link in the value, once."""
    found = dict.fromkeys(_urls(value))
    return "\n".join(["In the Dagster UI (llmops dev):", *(f"  {url}" for url in found)]) if found else ""


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (url for name, url in value.items() if name in {"run_url", "asset_url"} and url)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _urls(inner)


def _feedback(rows: list[Mapping[str, Any]]) -> str:
    if not rows:
        return "No feedback was given to it."
    said = (
        (
            row["at"],
            row["subject"],
            row["thumbs"] or "",
            row["score"] or "",
            short(row["comment"] or "", TEXT_CHARACTERS),
        )
        for row in rows
    )
    return table(("feedback", "by", "thumbs", "score", "comment"), said)


def _document(value: Mapping[str, Any]) -> str:
    rows = [
        (
            version["document_hash"][:HASH_CHARACTERS],
            version["changed_at"],
            short(f"{version['source']} {version['uri']}", TEXT_CHARACTERS),
            ", ".join(str(release["number"]) for release in version["releases"]),
            version["requests"],
            _by(version),
        )
        for version in value["versions"]
    ]
    lines = [f"Document {value['document_id']}", ""]
    lines.append(table(("version", "first read", "from", "in releases", "requests", "by run"), rows))
    for version in value["versions"]:
        latest = [f"  {request['started_at']}  {request['request_id']}" for request in version["latest"]]
        if latest:
            lines += ["", f"Latest requests answered from {version['document_hash'][:HASH_CHARACTERS]}:", *latest]
    if value["releases_not_retained"]:
        lines += ["", f"Of {value['releases_not_retained']} more releases the documents are no longer retained."]
    return "\n".join([*lines, "", _links(value)])
