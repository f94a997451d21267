"""The composition root: from an assistant's folder to its Dagster definitions.

The one place that knows every asset, check, job, schedule and sensor. It reads `assistant.yaml` and nothing else: no
catalog, no model, no network.
"""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from jobs.build import index_build, release_create
from jobs.canary import canary_end
from jobs.evaluation import evaluation_nightly, evaluation_score
from jobs.ingest import traffic_every_five_minutes, traffic_ingest
from jobs.maintenance import lakehouse_maintain, maintenance_daily
from jobs.promotion import release_promote
from jobs.replay import traffic_replay
from jobs.rollback import release_rollback
from llmops_assets.corpus.checks import chunks_are_sound, documents_are_sound
from llmops_assets.corpus.chunks import chunks
from llmops_assets.corpus.documents import documents
from llmops_assets.corpus.rejected import nothing_rejected
from llmops_assets.evaluation.cases import cases
from llmops_assets.evaluation.reports import reports
from llmops_assets.evaluation.results import results
from llmops_assets.index.embeddings import embeddings
from llmops_assets.index.vector_index import finds_what_exact_search_finds, vector_index
from llmops_assets.prompts.versions import versions
from llmops_assets.release.manifests import manifests
from llmops_assets.traffic.feedback import feedback
from llmops_assets.traffic.replays import replays
from llmops_assets.traffic.requests import requests
from llmops_core.assistant import Assistant
from llmops_core.models.named import open_assistant
from llmops_core.settings import load_settings
from resources.platform import resources
from sensors.canary_verdict import canary_verdict
from sensors.documents_changed import documents_changed

ASSETS = (documents, chunks, embeddings, vector_index, versions, manifests, requests, feedback, replays)
EVALUATION = (cases, results, reports)
CHECKS = (documents_are_sound, nothing_rejected, chunks_are_sound, finds_what_exact_search_finds)


def build_definitions(folder: str | Path) -> dg.Definitions:
    """All definitions of the assistant in `folder`; raises `ConfigError` for a wrong `assistant.yaml`."""
    assistant = open_assistant(Path(folder))
    build, ingest, maintain = index_build(assistant), traffic_ingest(assistant), lakehouse_maintain(assistant)
    end_canary = canary_end(assistant)
    has_cases = assistant.evaluation.cases is not None
    score = [evaluation_score(assistant)] if has_cases else []
    return dg.Definitions(
        assets=[make(assistant) for make in (*ASSETS, *(EVALUATION if has_cases else ()))],
        asset_checks=[make(assistant) for make in CHECKS],
        jobs=[
            build,
            release_create(assistant),
            release_promote(assistant),
            release_rollback(assistant),
            end_canary,
            *score,
            ingest,
            traffic_replay(assistant),
            maintain,
        ],
        schedules=[
            *map(evaluation_nightly, score),
            traffic_every_five_minutes(assistant, ingest),
            maintenance_daily(maintain),
        ],
        sensors=[documents_changed(assistant, build), canary_verdict(assistant, end_canary), _automation(assistant)],
        resources=resources(),
        executor=_executor(),
    )


def _automation(assistant: Assistant) -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        "upstream_changed",
        target=dg.AssetSelection.key_prefixes([assistant.name]),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Rebuilds what lies downstream of an asset whose data version changed.",
    )


def _executor() -> dg.ExecutorDefinition:
    """The executor that `LLMOPS_EXECUTOR` names, for jobs and for materialisations from the UI alike."""
    executors: dict[str, Callable[[], dg.ExecutorDefinition]] = {
        "in_process": lambda: dg.in_process_executor,
        "multiprocess": lambda: dg.multiprocess_executor,
        "k8s": _k8s_executor,
    }
    return executors[load_settings().executor]()


def _k8s_executor() -> dg.ExecutorDefinition:
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor
