"""The one partition dimension: the embedder revision.

The keys are those of the embedders that `assistant.yaml` names, `embedder.model` first, then `embedder.beside`. They are
known without I/O, so an empty home can be materialised at once.
"""

from collections.abc import Mapping

import dagster as dg

from llmops_core.assistant import Assistant, EmbedderModel
from llmops_core.errors import NotFoundError
from llmops_core.models.revisions import embedder_revision
from llmops_core.settings import load_settings


def embedder_models(assistant: Assistant) -> Mapping[str, EmbedderModel]:
    """Embedder revision → model, in the order of `assistant.yaml`."""
    settings = load_settings()
    return {
        embedder_revision(settings, embedder.model, embedder.query_prefix, embedder.document_prefix): embedder
        for embedder in (assistant.embedder, *assistant.embedder.beside)
    }


def embedder_revisions(assistant: Assistant) -> dg.StaticPartitionsDefinition:
    """The partitions of `index/embeddings` and `index/vector_index`."""
    return dg.StaticPartitionsDefinition(list(embedder_models(assistant)))


def embedder_of(assistant: Assistant, revision: str) -> EmbedderModel:
    """The embedder of a partition; raises `NotFoundError` if `assistant.yaml` no longer names it."""
    models = embedder_models(assistant)
    if revision not in models:
        raise NotFoundError(
            f"assistant.yaml of {assistant.name} names no embedder of revision {revision}; it has {', '.join(models)}."
            " Put the model under embedder.beside to keep its index up to date."
        )
    return models[revision]
