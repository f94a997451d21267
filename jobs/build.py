"""`index_build`: documents to release."""

import dagster as dg

from llmops_assets.house import asset_key
from llmops_core.assistant import Assistant


def index_build(assistant: Assistant) -> dg.UnresolvedAssetJobDefinition:
    """Everything from the sources to a release, for one embedder revision (the partition)."""
    keys = [
        asset_key(assistant, group, noun)
        for group, noun in (
            ("corpus", "documents"),
            ("corpus", "rejected"),
            ("corpus", "chunks"),
            ("index", "embeddings"),
            ("index", "vector_index"),
            ("prompts", "versions"),
            ("release", "manifests"),
        )
    ]
    return dg.define_asset_job(
        "index_build",
        selection=dg.AssetSelection.assets(*keys),
        description="Documents → chunks → embeddings → vector index → release; work in proportion to what changed.",
    )
