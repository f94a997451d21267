"""`llmops search`."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from llmops_cli.context import Moment, assistant_option, json_option, release_option, reports_errors
from llmops_cli.index import AS_OF, past_index
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
@click.option("--as-of", type=Moment(), help=AS_OF)
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, question: str, top_k: int, release: str, as_of: datetime | None, as_json: bool) -> None:
    """Find the chunks for a QUESTION, as the gateway would find them with this release, or found them at a moment.

    The index of a release that is named, or of a moment, is made anew from the lakehouse where it is no longer there.
    """
    settings, name = load_settings(), assistant().name
    releases = Releases(Lakehouse.open(settings), name)
    named = click.get_current_context().get_parameter_source("release") is not ParameterSource.DEFAULT
    past = past_index(settings, name, release if named else None, as_of) if named or as_of else None
    found = past.release if past else releases.get(release)
    loaded = load_release(settings, ModelPool(settings), found.manifest, releases.prompt_text(found))
    hits = loaded.retrieve(question, top_k).hits
    value = {
        "index_version": found.manifest.index.version,
        "release_id": found.release_id,
        "as_of": as_of.isoformat() if as_of else None,
        "hits": [asdict(hit) for hit in hits],
    }
    emit(value, "\n\n".join(_shown(n, hit) for n, hit in enumerate(hits, 1)) or "nothing found", as_json=as_json)


def _shown(number: int, hit: Hit) -> str:
    where = place(hit.document_id, hit.char_start, hit.char_end)
    return f"{number:>2}. {where}  (score {hit.score:.4f})\n    {short(hit.text, TEXT_SHOWN)}"
