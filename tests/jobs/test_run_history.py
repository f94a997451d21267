"""What maintenance deletes of Dagster's history, on a real instance: old runs, and nothing that anything still looks at."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG

from jobs.build import CAUSE_TAG
from jobs.maintenance import maintain_all
from jobs.run_history import forget_runs, unneeded_runs
from llmops_assets.house import latest_evaluation, latest_materialization, on_changed_data, recorded_versions
from llmops_assets.partitions import embedder_models
from llmops_cli.instance import prepare_instance
from llmops_core.assistant import Assistant, load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.settings import load_settings

DOCUMENTS, EMBEDDINGS, SEEN, BELOW = (
    dg.AssetKey(["notes", "corpus", noun]) for noun in ("documents", "embeddings", "seen", "below")
)
CHECK = dg.AssetCheckKey(DOCUMENTS, "is_sound")
PART_CHECK = dg.AssetCheckKey(EMBEDDINGS, "are_near")
RETENTION = timedelta(days=2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    prepare_instance(load_settings())
    return tmp_path / "home"


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    text = (
        "sources: [{type: folder, path: .}]\nembedder: {model: minilm, beside: [bge-small]}\nretention: {log_days: 2}\n"
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "assistant.yaml").write_text(f"name: notes\n{text}", encoding="utf-8")
    return load_assistant(tmp_path / "notes")


class Pipeline:
    """Four small assets of `notes` and the runs of them, as the daemon or a command makes them."""

    def __init__(self, instance: dg.DagsterInstance, assistant: Assistant) -> None:
        self.instance, self.assistant = instance, assistant
        self.parts = list(embedder_models(assistant))
        self.version, self.breaks = 1, False
        self.cursor: dg.AssetDaemonCursor | None = None

        @dg.asset(key=DOCUMENTS)
        def documents() -> dg.MaterializeResult[None]:
            if self.breaks:
                raise ValueError("the source is away")
            print("reading")
            version = f"{self.version}"
            return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata={"read_snapshot": f"9{version}"})

        @dg.asset_check(asset=documents)
        def is_sound() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True, metadata={"version": self.version})

        partitions = dg.StaticPartitionsDefinition(self.parts)

        @dg.asset(key=EMBEDDINGS, partitions_def=partitions)
        def embeddings(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
            return dg.MaterializeResult(data_version=dg.DataVersion(f"{context.partition_key}-{self.version}"))

        @dg.asset_check(asset=embeddings, partitions_def=partitions, blocking=True)
        def are_near(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed=True, metadata={"data_version": f"{context.partition_key}-{self.version}"}
            )

        @dg.observable_source_asset(key=SEEN)
        def seen() -> dg.DataVersion:
            return dg.DataVersion(f"{self.version}")

        @dg.asset(key=BELOW, deps=[documents], automation_condition=on_changed_data())
        def below() -> None: ...

        self.definitions = dg.Definitions(
            assets=[documents, embeddings, seen, below],
            asset_checks=[is_sound, are_near],
            jobs=[
                dg.define_asset_job("documents", dg.AssetSelection.assets(DOCUMENTS)),
                dg.define_asset_job("embeddings", dg.AssetSelection.assets(EMBEDDINGS)),
                dg.define_asset_job("seen", dg.AssetSelection.assets(SEEN)),
                dg.define_asset_job("below", dg.AssetSelection.assets(BELOW)),
                dg.define_asset_job("both", dg.AssetSelection.assets(DOCUMENTS, BELOW)),
            ],
        )

    def run(
        self,
        job: str,
        part: str | None = None,
        only: dg.AssetKey | None = None,
        cause: str = "",
        tags: dict[str, str] | None = None,
    ) -> str:
        """A run of a job, or of one asset of it; its id."""
        resolved = self.definitions.resolve_job_def(job)
        done = resolved.execute_in_process(
            instance=self.instance,
            partition_key=part,
            asset_selection=[only] if only else None,
            tags=({CAUSE_TAG: cause} if cause else {}) | (tags or {}),
            raise_on_error=not self.breaks,
        )
        return done.run_id

    def requests(self) -> int:
        """Runs that the next look of the automation asks for."""
        result = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return result.total_requested

    def maintain(self, at: datetime) -> list[str]:
        """Delete what may go at a moment; the ids."""
        gone = unneeded_runs(self.instance, self.assistant, at)
        forget_runs(self.instance, gone)
        return gone

    def view(self) -> dict[str, Any]:
        """All that the platform asks Dagster of its assets."""
        partitions = {part: latest_materialization(self.instance, EMBEDDINGS, part) for part in self.parts}
        with dg.build_asset_context(instance=self.instance) as context:
            verdict = latest_evaluation(context, DOCUMENTS, CHECK.name)
            verdicts = {part: latest_evaluation(context, EMBEDDINGS, PART_CHECK.name, part) for part in self.parts}
        summary = self.instance.event_log_storage.get_asset_check_summary_records([CHECK])[CHECK]
        return {
            "recorded": recorded_versions(self.instance, self.assistant),
            "documents": latest_materialization(self.instance, DOCUMENTS),
            "embeddings": partitions,
            "materialized": set(self.instance.get_materialized_partitions(EMBEDDINGS)),
            "verdict": verdict,
            "verdicts": verdicts,
            "summary": summary.last_check_execution_record,
            "observed": self.instance.fetch_observations(SEEN, limit=1).records[0],
            "assets": {
                record.asset_entry.asset_key: record.asset_entry for record in self.instance.get_asset_records()
            },
            "keys": set(self.instance.get_asset_keys()),
        }


@pytest.fixture
def pipeline(instance: dg.DagsterInstance, assistant: Assistant) -> Pipeline:
    return Pipeline(instance, assistant)


def later() -> datetime:
    """A moment at which all that has ended by now is past its time."""
    return datetime.now(UTC) + RETENTION


def files_of(home: Path, run_id: str) -> list[Path]:
    return [path for path in (home / "dagster").rglob("*") if run_id in path.as_posix()]


def test_runs_that_others_superseded_go_with_their_files_and_all_that_is_asked_of_dagster_stays(
    home: Path, instance: dg.DagsterInstance, pipeline: Pipeline
) -> None:
    old = [pipeline.run("documents"), pipeline.run("embeddings", pipeline.parts[1]), pipeline.run("seen")]
    kept = [pipeline.run("embeddings", pipeline.parts[0])]
    pipeline.version = 2
    kept += [pipeline.run("documents"), pipeline.run("embeddings", pipeline.parts[1]), pipeline.run("seen")]
    kept += [pipeline.run("below")]
    pipeline.requests()
    before = pipeline.view()
    versions = {part: verdict.metadata["data_version"].value for part, verdict in before["verdicts"].items()}
    assert versions == {pipeline.parts[0]: f"{pipeline.parts[0]}-1", pipeline.parts[1]: f"{pipeline.parts[1]}-2"}
    assert all(files_of(home, run_id) for run_id in old)
    assert any("compute_logs" in path.as_posix() for path in files_of(home, old[0]))

    assert pipeline.maintain(later()) == old

    assert pipeline.view() == before
    assert not any(files_of(home, run_id) for run_id in old)
    assert {run.run_id for run in instance.get_runs()} == set(kept)
    assert all(instance.all_logs(run_id) for run_id in kept)
    history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    assert [record.run_id for record in history] == [kept[1]]
    history = instance.event_log_storage.get_asset_check_execution_history(PART_CHECK, limit=10)
    assert {record.run_id for record in history} == {kept[0], kept[2]}
    assert pipeline.maintain(later()) == []

    assert pipeline.requests() == 0
    pipeline.run("documents")
    assert pipeline.requests() == 0
    pipeline.version = 3
    pipeline.run("documents")
    assert pipeline.requests() == 1


def test_runs_within_their_time_stay_and_take_the_place_of_none_before_them(pipeline: Pipeline) -> None:
    first, second = pipeline.run("documents"), pipeline.run("documents")
    between = later()
    pipeline.run("documents")
    assert pipeline.maintain(between) == [first]
    assert pipeline.maintain(later()) == [second]


def test_the_latest_run_of_a_job_stays_for_each_way_of_ending_and_so_does_what_it_did_not_finish(
    instance: dg.DagsterInstance, pipeline: Pipeline
) -> None:
    good = pipeline.run("documents")
    pipeline.breaks = True
    first, last = pipeline.run("documents"), pipeline.run("documents")
    unfinished = instance.create_run_for_job(
        pipeline.definitions.resolve_job_def("documents"), status=dg.DagsterRunStatus.STARTED
    )
    assert pipeline.maintain(later()) == [first]
    assert {run.run_id for run in instance.get_runs()} == {good, last, unfinished.run_id}


def test_a_run_stays_while_any_asset_of_it_was_reported_by_none_since(pipeline: Pipeline) -> None:
    whole, part, _ = pipeline.run("both"), pipeline.run("both", only=DOCUMENTS), pipeline.run("both", only=DOCUMENTS)
    assert pipeline.maintain(later()) == [part]
    pipeline.run("below")
    assert pipeline.maintain(later()) == [whole]


def test_runs_of_one_cause_go_together(pipeline: Pipeline) -> None:
    """`documents_changed` numbers the next attempt by how many there were, and Dagster launches no number twice."""
    cause = "notes:content"
    first, second = pipeline.run("documents", cause=cause), pipeline.run("documents", cause=cause)
    between = later()
    third = pipeline.run("documents", cause=cause)
    pipeline.run("documents")
    assert pipeline.maintain(between) == []
    assert pipeline.maintain(later()) == []
    pipeline.run("documents", cause="notes:other content")
    assert pipeline.maintain(later()) == [first, second, third]


def test_very_many_runs_go_in_more_than_one_maintenance(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run_history.AT_ONCE", 2)
    monkeypatch.setattr("jobs.run_history.PAGE", 1)
    runs = [pipeline.run("below") for _ in range(4)]
    assert [pipeline.maintain(later()) for _ in range(3)] == [runs[:2], runs[2:3], []]


def test_runs_that_have_to_stay_keep_none_after_them_from_going(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run_history.AT_ONCE", 2)
    monkeypatch.setattr("jobs.run_history.PAGE", 1)
    for _ in range(3):
        pipeline.run("below", cause="notes:this")
        pipeline.run("below", cause="notes:that")
    runs = [pipeline.run("below") for _ in range(3)]
    between = later()
    for cause in ("notes:this", "notes:that"):
        pipeline.run("below", cause=cause)
    assert pipeline.maintain(between) == runs[:2]


def test_a_run_stays_while_a_re_execution_of_it_does(instance: dg.DagsterInstance, pipeline: Pipeline) -> None:
    def again(root: str, parent: str) -> str:
        return pipeline.run("below", tags={ROOT_RUN_ID_TAG: root, PARENT_RUN_ID_TAG: parent})

    root = pipeline.run("below")
    parent, lost = again(root, root), again(root, root)
    between = later()
    young = again(root, parent)
    assert pipeline.maintain(between) == []
    pipeline.run("below")
    assert pipeline.maintain(between) == []
    group = instance.get_run_group(root)
    assert group
    assert {run.run_id for run in group[1]} == {root, parent, lost, young}
    assert pipeline.maintain(later()) == [root, parent, lost, young]


def test_what_a_killed_maintenance_began_the_next_one_ends(
    home: Path, instance: dg.DagsterInstance, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, last = pipeline.run("documents"), pipeline.run("documents")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dg.DagsterInstance, "delete_run", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.maintain(later())
    assert instance.has_run(old)
    history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    assert [record.run_id for record in history] == [last]
    assert not any("compute_logs" in path.as_posix() for path in files_of(home, old))
    assert pipeline.maintain(later()) == [old]
    assert files_of(home, old) == []


def test_runs_of_other_assistants_stay(instance: dg.DagsterInstance, pipeline: Pipeline) -> None:
    @dg.asset(key=["other", "corpus", "documents"])
    def documents() -> None: ...

    others = [dg.materialize([documents], instance=instance).run_id for _ in range(2)]
    ours = [pipeline.run("documents") for _ in range(2)]
    assert pipeline.maintain(later()) == ours[:1]
    assert {run.run_id for run in instance.get_runs()} == {*others, ours[1]}


def test_maintenance_tells_of_the_runs_and_a_dry_run_leaves_them(
    instance: dg.DagsterInstance, pipeline: Pipeline
) -> None:
    old, _ = pipeline.run("documents"), pipeline.run("documents")
    lakehouse = Lakehouse.open(load_settings())
    lakehouse.prepare("notes")
    arguments = (instance, lakehouse, load_settings(), pipeline.assistant, Provenance("test"))
    now = later()
    plan = maintain_all(*arguments, dry_run=True, now=now)
    assert instance.has_run(old)
    done = maintain_all(*arguments, now=now)
    assert not instance.has_run(old)
    assert plan.runs == done.runs == done.to_dict()["runs"] == 1
    assert "finished runs: 1" in done.markdown()


def test_a_clock_that_leaps_deletes_no_run(instance: dg.DagsterInstance, pipeline: Pipeline) -> None:
    lakehouse = Lakehouse.open(load_settings())
    lakehouse.prepare("notes")
    arguments = (instance, lakehouse, load_settings(), pipeline.assistant, Provenance("test"))
    maintain_all(*arguments)
    old, _ = pipeline.run("documents"), pipeline.run("documents")
    assert maintain_all(*arguments, now=later() + RETENTION).doubt
    assert instance.has_run(old)
