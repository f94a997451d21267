"""`llmops ask`."""

from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.gateway_process import PROD, client, gateway, reports_refusals
from llmops_cli.output import emit
from llmops_core.settings import load_settings


@click.command()
@click.argument("question")
@click.option("--release", default=None, help="A channel or release id; prod if not given.")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, question: str, release: str | None, as_json: bool) -> None:
    """Ask a QUESTION through the gateway (a running one, or one for this question), logged like any other."""
    settings, name = load_settings(), assistant().name
    with gateway(settings, name, release or PROD) as url, reports_refusals(), client(url) as asking:
        completion = asking.chat.completions.create(
            model=f"{name}@{release}" if release else name,
            messages=[{"role": "user", "content": question}],
        )
    extension: dict[str, Any] = (completion.model_extra or {})["llmops"]
    answer = completion.choices[0].message.content or ""
    value = {"answer": answer, **extension}
    emit(value, f"{answer}\n\n{_sources(extension['chunks'])}\n\nrequest {extension['request_id']}", as_json=as_json)


def _sources(chunks: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"[{chunk['number']}]{'*' if chunk['cited'] else ' '} {chunk['document_id']}"
        f" [{chunk['char_start']}:{chunk['char_end']}]"
        for chunk in chunks
    )
