"""`llmops search`."""

from dataclasses import asdict
from typing import Any

import click

from llmops_cli.context import assistant_option, json_option, release_option, reports_errors
from llmops_cli.output import emit, place, short
from llmops_core.answering.loaded import ModelPool, load_release
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import load_settings
from llmops_core.vectors.hit import Hit

TEXT_SHOWN = 200


@click.command()
@click.argument("question")
@click.option("--top-k", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many chunks.")
@release_option("Whose index and retrieval settings", "dev", "what was built last")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, question: str, top_k: int, release: str, as_json: bool) -> None:
    """Find the chunks for a QUESTION, as the gateway would find them with this release."""
    settings = load_settings()
    releases = Releases(Lakehouse.open(settings), assistant().name)
    found = releases.get(release)
    loaded = load_release(settings, ModelPool(settings), found.manifest, releases.prompt_text(found))
    hits = loaded.retrieve(question, top_k).hits
    value = {"index_version": found.manifest.index.version, "hits": [asdict(hit) for hit in hits]}
    emit(value, "\n\n".join(_shown(n, hit) for n, hit in enumerate(hits, 1)) or "nothing found", as_json=as_json)


def _shown(number: int, hit: Hit) -> str:
    where = place(hit.document_id, hit.char_start, hit.char_end)
    return f"{number:>2}. {where}  (score {hit.score:.4f})\n    {short(hit.text, TEXT_SHOWN)}"
