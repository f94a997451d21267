"""`documents_changed`: launches the build when a source changed, and nothing when not.

The comparison is with what the latest materialisation of `corpus/documents` recorded and with how the latest builds ended,
so the sensor needs no state to be right. Looking is cheap while nothing happens: names, sizes and times first; bytes only
if those moved.
"""

import json
from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import PARTITION_NAME_TAG

from jobs.build import CAUSE_TAG, exclusive
from llmops_assets.house import asset_key, build_pool
from llmops_assets.partitions import embedder_models
from llmops_core.assistant import Assistant
from llmops_core.errors import SourceError

# A change whose builds failed this often waits for a person (or for the next change).
MAX_ATTEMPTS = 3
OTHER_ENDS = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]


def documents_changed(assistant: Assistant, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """One build for each embedder that the assistant keeps up to date; one that failed is tried again."""
    documents = asset_key(assistant, "corpus", "documents")

    @dg.sensor(
        name="documents_changed",
        job=job,
        minimum_interval_seconds=max(1, int(assistant.triggers.documents.every_minutes * 60)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches index_build when a source has new, changed or fewer documents.",
    )
    def documents_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from llmops_core.corpus.read import fingerprint, sources_of

        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        try:
            sources = sources_of(assistant)
            stat = fingerprint(sources, "stat")
            content = seen["content"] if seen.get("stat") == stat else fingerprint(sources, "content")
        except SourceError as error:
            return dg.SkipReason(str(error))
        cursor = json.dumps({"stat": stat, "content": content})
        changed = content != _recorded_fingerprint(context.instance, documents)
        cause = {CAUSE_TAG: f"{assistant.name}:{content}"}
        requests: list[dg.RunRequest] = []
        given_up: list[str] = []
        for revision in embedder_models(assistant):
            builds = _Builds(context.instance, job.name, assistant, revision)
            latest = builds.latest()
            if latest and not latest.is_finished:
                return dg.SensorResult(skip_reason=f"Build {latest.run_id} is under way.", cursor=cursor)
            # A build that failed after it had recorded the documents leaves an index that is behind them.
            failed = latest is not None and latest.is_failure
            if not changed and not failed:
                continue
            if latest and failed and builds.tried_in_vain(cause) >= MAX_ATTEMPTS:
                given_up.append(latest.run_id)
                continue
            tried = context.instance.get_runs_count(dg.RunsFilter(tags={**cause, PARTITION_NAME_TAG: revision}))
            requests.append(
                dg.RunRequest(f"{content}:{revision}:{tried + 1}", partition_key=revision, tags=cause),
            )
        skip = "No source changed since the last build."
        if given_up:
            skip = f"The build failed {MAX_ATTEMPTS} times: look at run {given_up[0]}, then launch index_build."
        if not requests:
            return dg.SensorResult(skip_reason=skip, cursor=cursor)
        # Else Dagster knows the pool only after a run of it, and lets the very first builds pass together.
        context.instance.event_log_storage.initialize_concurrency_limit_to_default(build_pool(assistant))
        return dg.SensorResult(requests, cursor=cursor)

    return documents_changed


class _Builds:
    """The builds of an embedder, by whatever started them."""

    def __init__(self, instance: dg.DagsterInstance, job: str, assistant: Assistant, revision: str) -> None:
        self._instance, self._job = instance, job
        self._tags = {**exclusive(assistant), PARTITION_NAME_TAG: revision}

    def latest(self) -> dg.DagsterRun | None:
        """The newest of them."""
        return next(iter(self._instance.get_runs(dg.RunsFilter(job_name=self._job, tags=self._tags), limit=1)), None)

    def tried_in_vain(self, cause: Mapping[str, str]) -> int:
        """How often the sensor launched one for this cause that failed, since the last that ended in another way.

        Those that a person launched in between count neither as a try nor as an end.
        """
        ended = dg.RunsFilter(job_name=self._job, tags=self._tags, statuses=OTHER_ENDS)
        records = self._instance.get_run_records(ended, limit=1)
        failed = dg.RunsFilter(
            job_name=self._job,
            tags={**self._tags, **cause},
            statuses=[dg.DagsterRunStatus.FAILURE],
            created_after=records[0].create_timestamp if records else None,
        )
        return self._instance.get_runs_count(failed)


def _recorded_fingerprint(instance: dg.DagsterInstance, documents: dg.AssetKey) -> str | None:
    event = instance.get_latest_materialization_event(documents)
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get("source_fingerprint") if materialization else None
    return str(value.value) if value else None
