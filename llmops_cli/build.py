"""`llmops build`."""

import time
from typing import Any

import click

from llmops_assets.partitions import embedder_models
from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit, facts
from llmops_cli.runs import WHERE, run_job
from llmops_core.assistant import Assistant
from llmops_core.prompts.files import read_prompt
from llmops_core.settings import Settings, load_settings


@click.command()
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, as_json: bool) -> None:
    """Build documents, chunks, embeddings, index and release; only what changed is done again."""
    result = build(load_settings(), assistant())
    shown = {"run_ids": f"{', '.join(result['run_ids'])}, {WHERE}", "moves": "; ".join(result["moves"]) or "none"}
    emit(result, facts({**result, **shown}), as_json=as_json)


def build(settings: Settings, assistant: Assistant) -> dict[str, Any]:
    """Run `index_build` for each embedder of the assistant; the result is that of its own embedder."""
    started = time.monotonic()
    read_prompt(assistant)  # its step would say the same, but only when everything is embedded
    runs = [run_job(settings, assistant, "index_build", partition_key=key) for key in embedder_models(assistant)]
    own = runs[0].assets
    return {
        "documents": own["corpus/documents"]["dagster/row_count"],
        "rejected": own["corpus/rejected"]["dagster/row_count"],
        "chunks": own["corpus/chunks"]["dagster/row_count"],
        "embedded": sum(run.assets["index/embeddings"]["embedded"] for run in runs),
        "index_version": own["index/vector_index"]["data_version"],
        "release_id": own["release/manifests"]["data_version"],
        "moves": [line[2:] for line in own["release/manifests"]["moves"].splitlines() if line.startswith("- ")],
        "run_ids": [run.run_id for run in runs],
        "seconds": round(time.monotonic() - started, 1),
    }
