"""`traffic_every_five_minutes`: a run while there is something to take, and none while there is nothing."""

from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.definitions import build_definitions
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import load_settings
from llmops_core.traffic.line import segment_name
from resources.platform import LakehouseResource


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))


def tick(folder: Path) -> list[dg.RunRequest]:
    """The runs that the schedule asks for."""
    (folder / "assistant.yaml").write_text("name: notes\nsources: [{type: python_topics}]\n", encoding="utf-8")
    repository = build_definitions(folder).get_repository_def()
    schedule = repository.get_schedule_def("traffic_every_five_minutes")
    resources = {"lakehouse": LakehouseResource()}
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(instance, repository_def=repository, resources=resources) as context,
    ):
        data = schedule.evaluate_tick(context)
    return list(data.run_requests or [])


def ship(name: str) -> None:
    """Put a segment where gateways put theirs."""
    fs, root = Lakehouse.open(load_settings()).spool()
    fs.create_dir(f"{root}/notes/gateway")
    with fs.open_output_stream(f"{root}/notes/gateway/{name}") as stream:
        stream.write(b"{}\n")


def test_nothing_to_take_is_no_run(tmp_path: Path) -> None:
    assert tick(tmp_path) == []


def test_a_shipped_segment_is_a_run(tmp_path: Path) -> None:
    ship(segment_name(1))
    assert len(tick(tmp_path)) == 1


def test_rows_that_wait_behind_a_missing_segment_fail_the_tick_and_start_no_run(tmp_path: Path) -> None:
    ship(segment_name(2))
    with pytest.raises(dg.DagsterError) as failed:
        tick(tmp_path)
    assert "segment 1 of gateway gateway is missing" in str(failed.value.__cause__)
