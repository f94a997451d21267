"""`llmops ask`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, release_option, reports_errors
from llmops_cli.gateway_process import PROD, client, gateway, reports_refusals
from llmops_cli.output import doing, emit, place
from llmops_core.settings import load_settings

# How the gateway knows that an answer rests on a chunk → how people are told.
CITED = {"marker": "  (cited)", "overlap": "  (its words are in the answer)", None: ""}


@click.command()
@click.argument("question")
@release_option("Which release answers", PROD, "what users are answered from")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, question: str, release: str, as_json: bool) -> None:
    """Ask a QUESTION through the gateway (a running one, or one for this question), logged like any other."""
    settings, name = load_settings(), assistant().name
    with (
        gateway(settings, name, release) as url,
        reports_refusals(),
        client(url) as asking,
        doing(f"Waiting for the answer of {name}"),
    ):
        completion = asking.chat.completions.create(
            model=name if release == PROD else f"{name}@{release}",
            messages=[{"role": "user", "content": question}],
        )
    extension: dict[str, Any] = (completion.model_extra or {})["llmops"]
    answer = completion.choices[0].message.content or ""
    value = {"answer": answer, **extension}
    emit(value, f"{answer}\n\n{_sources(extension)}", as_json=as_json)


def _sources(extension: dict[str, Any]) -> str:
    """What the answer was made from, and the ids to find it again by."""
    chunks = [
        f"  [{chunk['number']}] {place(chunk['document_id'], chunk['char_start'], chunk['char_end'])}"
        f"{CITED[chunk['cited']]}"
        for chunk in extension["chunks"]
    ]
    head = "Chunks that the generator was given:" if chunks else "The generator was given no chunk."
    return "\n".join([head, *chunks, f"Request {extension['request_id']}, release {extension['release_id']}"])
