"""How an index was made: what of `assistant.yaml` is in it beside the documents (`chunking`, `retrieval.language`).

A manifest names an index version alone. Whether another version holds other documents, or the same ones cut or stemmed
otherwise, is in the tables that it was made of.
"""

import polars as pl

from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.manifest import IndexPin


def made_alike(lakehouse: Lakehouse, assistant: str, one: IndexPin, other: IndexPin) -> bool:
    """Whether both are cut and indexed the same way, so that documents alone lie between them; what is not known is alike."""
    versions = lakehouse.table(assistant, "index_vector_index").read()
    settings = versions.filter(pl.col("index_version").is_in([one.version, other.version]))["settings"]
    cuttings = {_cutting(lakehouse, assistant, pin) for pin in (one, other)} - {None}
    return settings.n_unique() < 2 and len(cuttings) < 2


def _cutting(lakehouse: Lakehouse, assistant: str, pin: IndexPin) -> str | None:
    """The settings and tokenizer that cut the chunks, which all have the same; None if no chunk is there any more."""
    snapshot = pin.snapshots.get("corpus_chunks")
    if snapshot is None:
        return None
    try:
        chunks = lakehouse.table(assistant, "corpus_chunks").scan(snapshot)
    except NotFoundError:
        return None
    found = chunks.select("cutting").head(1).collect()["cutting"]
    return str(found[0]) if len(found) else None
