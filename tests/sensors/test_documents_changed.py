"""`documents_changed` on a real instance: what it launches, what it leaves, and what it does after failures."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG

from llmops_assets.definitions import build_definitions
from llmops_assets.partitions import embedder_models
from llmops_cli.build import build
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant, load_assistant
from llmops_core.errors import PermanentError
from llmops_core.settings import Settings
from tests.running_gateway import write_assistant


@pytest.fixture
def notes(tmp_path: Path) -> Assistant:
    return write_assistant(tmp_path / "notes")


def tick(instance: dg.DagsterInstance, assistant: Assistant, cursor: str | None = None) -> dg.SensorResult:
    """What the sensor decides now."""
    repository = build_definitions(assistant.folder).get_repository_def()
    context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
    data = repository.get_sensor_def("documents_changed").evaluate_tick(context)
    return dg.SensorResult(
        data.run_requests or None, skip_reason=None if data.run_requests else data.skip_message, cursor=data.cursor
    )


def launch(instance: dg.DagsterInstance, assistant: Assistant, requests: list[dg.RunRequest]) -> list[bool]:
    """Run what the sensor asked for, as the daemon would; whether each succeeded."""
    job = build_definitions(assistant.folder).resolve_job_def("index_build")
    return [
        job.execute_in_process(
            instance=instance, partition_key=request.partition_key, tags=request.tags, raise_on_error=False
        ).success
        for request in requests
    ]


def requested(result: dg.SensorResult) -> list[dg.RunRequest]:
    return list(result.run_requests or [])


def spoil_prompt(assistant: Assistant) -> str:
    """Break what only a late step of the build reads; the text that was there."""
    file = assistant.folder / "prompts" / "answer.jinja"
    text = file.read_text(encoding="utf-8")
    file.write_text("{% block system %}{% if %}", encoding="utf-8")
    return text


def mend_prompt(assistant: Assistant, text: str) -> None:
    (assistant.folder / "prompts" / "answer.jinja").write_text(text, encoding="utf-8")


def fail_by_hand(settings: Settings, assistant: Assistant) -> None:
    """A build that a person launches in the UI, and that fails."""
    (revision,) = embedder_models(assistant)
    with pytest.raises(PermanentError):
        run_job(settings, assistant, "index_build", partition_key=revision)


def test_a_change_is_built_once(instance: dg.DagsterInstance, notes: Assistant) -> None:
    first = requested(tick(instance, notes))
    assert len(first) == 1
    assert launch(instance, notes, first) == [True]
    assert "No source changed" in str(tick(instance, notes).skip_reason)

    tea = notes.folder / "docs" / "tea.md"
    tea.write_text("# Tea\n\nBlack tea is brewed at a hundred degrees.\n", encoding="utf-8")
    second = requested(tick(instance, notes))
    assert len(second) == 1
    assert second[0].run_key != first[0].run_key
    assert launch(instance, notes, second) == [True]
    assert requested(tick(instance, notes)) == []


def test_a_revert_is_a_change(instance: dg.DagsterInstance, notes: Assistant) -> None:
    tea = notes.folder / "docs" / "tea.md"
    original = tea.read_text(encoding="utf-8")
    keys: list[str | None] = []
    for text in (original, "# Tea\n\nBlack tea is brewed at a hundred degrees.\n", original):
        tea.write_text(text, encoding="utf-8")
        requests = requested(tick(instance, notes))
        keys.extend(request.run_key for request in requests)
        launch(instance, notes, requests)
    assert len(set(keys)) == 3


def test_a_touched_file_is_no_change(
    instance: dg.DagsterInstance, notes: Assistant, home_with_models: Settings
) -> None:
    build(home_with_models, notes)
    before = tick(instance, notes)
    (notes.folder / "docs" / "tea.md").touch()
    after = tick(instance, notes, before.cursor)
    assert requested(after) == []
    assert after.cursor != before.cursor


def test_a_build_that_failed_after_the_documents_is_tried_again_and_then_left_to_a_person(
    instance: dg.DagsterInstance, notes: Assistant, home_with_models: Settings
) -> None:
    text = spoil_prompt(notes)
    keys: list[str | None] = []
    for _ in range(3):
        requests = requested(tick(instance, notes))
        keys.extend(request.run_key for request in requests)
        assert launch(instance, notes, requests) == [False]
    assert len(set(keys)) == 3
    assert "failed 3 times" in str(tick(instance, notes).skip_reason)
    (notes.folder / "docs" / "tea.md").write_text("# Tea\n\nTea is out.\n", encoding="utf-8")
    assert len(requested(tick(instance, notes))) == 1

    mend_prompt(notes, text)
    build(home_with_models, notes)
    assert "No source changed" in str(tick(instance, notes).skip_reason)


def test_a_failed_build_of_a_person_is_tried_again(
    instance: dg.DagsterInstance, notes: Assistant, home_with_models: Settings
) -> None:
    text = spoil_prompt(notes)
    fail_by_hand(home_with_models, notes)
    mend_prompt(notes, text)
    assert launch(instance, notes, requested(tick(instance, notes))) == [True]


def test_builds_of_a_person_that_fail_as_well_do_not_make_the_sensor_try_again(
    instance: dg.DagsterInstance, notes: Assistant, home_with_models: Settings
) -> None:
    spoil_prompt(notes)
    for _ in range(3):
        launch(instance, notes, requested(tick(instance, notes)))
    fail_by_hand(home_with_models, notes)
    assert "failed 3 times" in str(tick(instance, notes).skip_reason)


def test_each_embedder_has_a_build_of_its_own(instance: dg.DagsterInstance, notes: Assistant) -> None:
    file = notes.folder / "assistant.yaml"
    file.write_text(f"{file.read_text(encoding='utf-8')}embedder: {{beside: [bge-small]}}\n", encoding="utf-8")
    both = load_assistant(notes.folder)
    requests = requested(tick(instance, both))
    assert len({request.partition_key for request in requests}) == 2
    assert launch(instance, both, requests[:1]) == [True]
    # The documents are recorded by now; the other embedder's build is still to come, and nothing has failed.
    assert launch(instance, both, requests[1:]) == [True]
    assert requested(tick(instance, both)) == []


def test_a_build_under_way_is_waited_for(instance: dg.DagsterInstance, notes: Assistant) -> None:
    (request,) = requested(tick(instance, notes))
    job = build_definitions(notes.folder).resolve_job_def("index_build")
    run = instance.create_run_for_job(
        job, tags={**job.tags, **request.tags, PARTITION_NAME_TAG: str(request.partition_key)}
    )
    result = tick(instance, notes)
    assert requested(result) == []
    assert run.run_id in str(result.skip_reason)


def test_a_source_that_is_away_is_the_reason_to_skip(instance: dg.DagsterInstance, notes: Assistant) -> None:
    (notes.folder / "docs").rename(notes.folder / "elsewhere")
    result = tick(instance, notes)
    assert requested(result) == []
    assert "docs" in str(result.skip_reason)
