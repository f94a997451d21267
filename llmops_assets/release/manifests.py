"""`release/manifests`: the release of what was built, and the moves that follow by themselves."""

import dagster as dg

from llmops_assets.house import (
    INDEX_CHECK,
    RETRIES,
    asset_key,
    build_pool,
    described,
    failing_for_good,
    latest_data_version,
    materialized,
    on_changed_data,
    passed_check,
    provenance,
    recorded,
)
from llmops_assets.partitions import embedder_models
from llmops_core.assistant import Assistant
from resources.platform import LakehouseResource, ModelsResource


def manifests(assistant: Assistant) -> dg.AssetsDefinition:
    """A release of the newest index, the newest prompt and the models that `assistant.yaml` names."""
    index = asset_key(assistant, "index", "vector_index")
    prompts = asset_key(assistant, "prompts", "versions")

    @dg.asset(
        key=asset_key(assistant, "release", "manifests"),
        deps=[index, prompts],
        description="One row a release: the manifest that pins everything an answer depends on.",
        automation_condition=on_changed_data(),
        retry_policy=RETRIES,
        pool=build_pool(assistant),
        **described(assistant, "release", "iceberg"),
    )
    def release_manifests(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource, models: ModelsResource
    ) -> dg.MaterializeResult[None]:
        from llmops_core.evaluation.score import score_retrieval
        from llmops_core.release.publish import Built, publish_built

        built = Built(recorded(context, prompts), _checked(context, assistant, index))
        indexes = {f"index_vector_index.{revision}": version for revision, version in built.index_versions.items()}
        read = {"prompts_versions": built.prompt_hash, **indexes}
        lake, settings, by = lakehouse.open(assistant), models.settings(), provenance(context, **read)
        with failing_for_good():
            done = publish_built(
                lake,
                settings,
                assistant,
                built,
                author=f"run {context.run.run_id}",
                message="built",
                provenance=by,
                measure=lambda release: score_retrieval(lake, settings, release, context.log.info, by),
            )
        release = done.release
        return materialized(
            release.release_id,
            {
                "release": f"number {release.number}" + (" (new)" if done.is_new else " (unchanged)"),
                "moves": dg.MetadataValue.md("\n".join(f"- {move}" for move in done.moves) or "none"),
                "manifest": dg.MetadataValue.json(release.manifest.to_dict()),
                "read": dg.MetadataValue.json(read),
            },
        )

    return release_manifests


def _checked(context: dg.AssetExecutionContext, assistant: Assistant, index: dg.AssetKey) -> dict[str, str]:
    """Embedder revision → newest index version, without those that did not pass their check; the own must have passed.

    A run that builds an index ends where its check fails, but automation and `release_create` start here.
    """
    versions: dict[str, str] = {}
    for number, revision in enumerate(embedder_models(assistant)):
        version = latest_data_version(context, index, revision)
        if version is None:
            continue
        if passed_check(context, index, INDEX_CHECK, revision, version):
            versions[revision] = version
            continue
        refused = (
            f"{index.to_user_string()}: version {version} for {revision} did not pass its check {INDEX_CHECK}, so it is in no"
            " release. What the check found is shown at the asset in the Dagster UI; llmops build checks it again."
        )
        if number == 0:
            raise dg.Failure(refused, allow_retries=False)
        context.log.warning(refused)
    return versions
