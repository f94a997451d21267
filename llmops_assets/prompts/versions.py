"""`prompts/versions`: the assistant's templates, versioned by content."""

import dagster as dg

from llmops_assets.house import RETRIES, asset_key, build_pool, described, failing_for_good, materialized, provenance
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource


def versions(assistant: Assistant) -> dg.AssetsDefinition:
    """The prompt that `assistant.yaml` names; a changed text becomes the next version."""

    @dg.asset(
        key=asset_key(assistant, "prompts", "versions"),
        description="Immutable numbered versions of the prompts; the same text is the same version.",
        retry_policy=RETRIES,
        pool=build_pool(assistant),
        **described(assistant, "prompts", "iceberg", "jinja"),
    )
    def prompts_versions(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
        from llmops_core.prompts.files import register_prompt

        with failing_for_good():
            version, is_new = register_prompt(lakehouse.open(assistant), assistant, provenance(context))
        return materialized(
            version.hash,
            {
                "prompt": f"{version.name} version {version.version}",
                "new": is_new,
                "text": dg.MetadataValue.md(f"```jinja\n{version.text}\n```"),
            },
        )

    return prompts_versions
