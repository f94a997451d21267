"""`index_build`: documents to release; `release_create`: its last step alone."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops_assets.house import asset_key
from llmops_core.assistant import Assistant

# On the runs that `documents_changed` launches: the assistant and the content of its sources.
CAUSE_TAG = "llmops/cause"


def index_build(assistant: Assistant) -> UnresolvedAssetJobDefinition:
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
        tags=exclusive(assistant),
    )


def release_create(assistant: Assistant) -> UnresolvedAssetJobDefinition:
    """A release of what is built already and the present prompt and configuration."""
    return dg.define_asset_job(
        "release_create",
        selection=dg.AssetSelection.assets(
            asset_key(assistant, "prompts", "versions"), asset_key(assistant, "release", "manifests")
        ),
        description="The newest index with the present prompt and assistant.yaml as a release, on dev.",
        tags=exclusive(assistant),
    )


def exclusive(assistant: Assistant) -> dict[str, str]:
    """Of runs with this tag one goes at a time, as of those of the pool (see `dagster.yaml`); they are found by it too."""
    return {"llmops/exclusive": assistant.name}


def assistant_tag(assistant: Assistant) -> dict[str, str]:
    """On runs that are neither of assets nor exclusive: by it maintenance finds whose they are."""
    return {"llmops/assistant": assistant.name}
