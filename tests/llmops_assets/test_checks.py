"""A build stops where a check refuses what was made, and says so; a check that breaks is an error and no verdict."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llmops_assets.definitions import build_definitions
from llmops_assets.partitions import embedder_models
from llmops_core.assistant import Assistant
from llmops_core.chunks.chunk import Chunk
from llmops_core.chunks.chunker import chunk_document
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.read import read_all
from llmops_core.quality import Rule, Suite
from tests.running_gateway import write_assistant

pytestmark = pytest.mark.models


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    return write_assistant(tmp_path / "notes")


@dataclasses.dataclass(frozen=True)
class Build:
    """What a run of `index_build` made, and the verdicts of its checks."""

    success: bool
    made: set[str]
    verdicts: dict[str, bool]
    errors: dict[str, str]


def run(instance: dg.DagsterInstance, assistant: Assistant) -> Build:
    """Run the job of the assistant's own definitions."""
    (partition,) = embedder_models(assistant)
    job = build_definitions(assistant.folder).resolve_job_def("index_build")
    result = job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)
    failures = {e.step_key: e.step_failure_data.error for e in result.all_events if e.is_step_failure and e.step_key}
    return Build(
        result.success,
        {"/".join(e.materialization.asset_key.path[1:]) for e in result.get_asset_materialization_events()},
        {e.check_name: e.passed for e in result.get_asset_check_evaluations()},
        {step: error.to_string() for step, error in failures.items() if error},
    )


def test_documents_that_fail_their_check_are_not_cut(
    instance: dg.DagsterInstance, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blank(*arguments: Any) -> Iterator[Document | Rejected]:
        """What a source would give that takes an empty page for a document."""
        for item in read_all(*arguments):
            yield dataclasses.replace(item, text=" \n") if isinstance(item, Document) else item

    monkeypatch.setattr("llmops_core.corpus.sync.read_all", blank)
    build = run(instance, assistant)
    assert not build.success
    assert build.verdicts == {"documents_are_sound": False, "nothing_rejected": True}
    assert build.made == {"corpus/documents", "corpus/rejected", "prompts/versions"}


def test_chunks_that_fail_their_check_are_not_embedded(
    instance: dg.DagsterInstance, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reversed_spans(*arguments: Any) -> Iterator[Chunk]:
        for chunk in chunk_document(*arguments):
            yield dataclasses.replace(chunk, char_start=chunk.char_end, char_end=chunk.char_start)

    monkeypatch.setattr("llmops_core.chunks.sync.chunk_document", reversed_spans)
    build = run(instance, assistant)
    assert not build.success
    assert (build.verdicts["documents_are_sound"], build.verdicts["chunks_are_sound"]) == (True, False)
    assert build.made == {"corpus/documents", "corpus/rejected", "prompts/versions", "corpus/chunks"}


def test_a_crash_inside_a_check_is_an_error_and_no_verdict(
    instance: dg.DagsterInstance, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Numbers are compared with texts, which Great Expectations itself would report as bad data.
    arguments = {"column_A": "tokens", "column_B": "chunk_id"}
    odd = Suite("chunks", (Rule("it is odd", "expect_column_pair_values_a_to_be_greater_than_b", arguments),))
    monkeypatch.setattr("llmops_core.quality.chunks_suite", lambda size: odd)
    build = run(instance, assistant)
    assert not build.success
    assert "chunks_are_sound" not in build.verdicts
    (error,) = (text for step, text in build.errors.items() if "chunks_are_sound" in step)
    assert "could not judge whether it is odd" in error
    assert "index/embeddings" not in build.made
