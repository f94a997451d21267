"""`documents_changed`: launches the build when a source changed, and nothing when not.

The comparison is with what the latest materialisation of `corpus/documents` recorded, so the sensor needs no state to be
right. Looking is cheap while nothing happens: names, sizes and times first; bytes only if those moved.
"""

import json

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from llmops_assets.house import asset_key
from llmops_assets.partitions import embedder_models
from llmops_core.assistant import Assistant
from llmops_core.corpus.read import fingerprint, sources_of
from llmops_core.errors import SourceError

# A change whose runs failed this often waits for a person (or for the next change).
MAX_ATTEMPTS = 3


def documents_changed(assistant: Assistant, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """One build for each embedder that the assistant keeps up to date."""
    documents = asset_key(assistant, "corpus", "documents")

    @dg.sensor(
        name="documents_changed",
        job=job,
        minimum_interval_seconds=max(1, int(assistant.triggers.documents.every_minutes * 60)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches index_build when a source has new, changed or fewer documents.",
    )
    def documents_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        try:
            sources = sources_of(assistant)
            stat = fingerprint(sources, "stat")
            content = seen["content"] if seen.get("stat") == stat else fingerprint(sources, "content")
        except SourceError as error:
            return dg.SkipReason(str(error))
        cursor = json.dumps({"stat": stat, "content": content})
        if content == _recorded_fingerprint(context.instance, documents):
            return dg.SensorResult(skip_reason="No source changed since the last build.", cursor=cursor)
        runs = context.instance.get_run_records(
            dg.RunsFilter(tags={CAUSE_TAG: f"{assistant.name}:{content}"}), limit=100
        )
        if any(not record.dagster_run.is_finished for record in runs):
            return dg.SensorResult(skip_reason="The build of this change is under way.", cursor=cursor)
        revisions = list(embedder_models(assistant))
        # A content can come back after a revert: builds of it that succeeded are not failed attempts.
        failed = sum(record.dagster_run.is_failure for record in runs)
        if failed >= MAX_ATTEMPTS * len(revisions):
            reason = f"The build of this change failed {MAX_ATTEMPTS} times; look at its runs, then launch index_build."
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        requests = [
            dg.RunRequest(
                run_key=f"{content}:{revision}:{len(runs) // len(revisions) + 1}",
                partition_key=revision,
                tags={CAUSE_TAG: f"{assistant.name}:{content}"},
            )
            for revision in revisions
        ]
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return documents_changed


CAUSE_TAG = "llmops/cause"


def _recorded_fingerprint(instance: dg.DagsterInstance, documents: dg.AssetKey) -> str | None:
    event = instance.get_latest_materialization_event(documents)
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get("source_fingerprint") if materialization else None
    return str(value.value) if value else None
