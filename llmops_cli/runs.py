"""Runs Dagster jobs of an assistant in this process, on the home's instance, so that the UI shows them."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from llmops_assets.definitions import build_definitions
from llmops_cli.instance import prepare_instance
from llmops_cli.run_progress import RunProgress
from llmops_core.assistant import Assistant
from llmops_core.errors import PermanentError
from llmops_core.settings import Settings

WHERE = "under Runs in the Dagster UI (llmops dev)"
"""Where a person finds a run."""


@dataclass(frozen=True)
class Materialized:
    """What a run reported: asset (`group/noun`) → metadata by name."""

    run_id: str
    assets: Mapping[str, Mapping[str, Any]]


def run_job(
    settings: Settings,
    assistant: Assistant,
    job: str,
    *,
    partition_key: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Materialized:
    """Run a job to its end; raises `PermanentError` with the reason and the run's id if it fails."""
    prepare_instance(settings)
    definition = build_definitions(assistant.folder).resolve_job_def(job)
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance:
        instance.add_event_listener(run_id, RunProgress(assistant.name))
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = definition.execute_in_process(
            run_config={**quiet, **(config or {})},
            instance=instance,
            partition_key=partition_key,
            run_id=run_id,
            raise_on_error=False,
        )
    if not result.success:
        raise PermanentError(
            f"{assistant.name}: job {job} failed (run {run_id}).\n{_reasons(result)}\n  Its log is {WHERE}."
        )
    assets: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        name = "/".join(materialization.asset_key.path[1:])
        assets[name] = {key: value.value for key, value in materialization.metadata.items()}
    return Materialized(run_id, assets)


def _reasons(result: dg.ExecuteInProcessResult) -> str:
    """Why steps and checks failed, in the words of whoever raised."""
    lines = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            described = data.user_failure_data.description if data.user_failure_data else None
            error = data.error
            cause = error.cause.message if error and error.cause else error.message if error else ""
            lines.append(f"  {event.step_key}: {(described or cause).strip()}")
    return "\n".join(dict.fromkeys(lines))
