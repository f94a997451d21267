"""What `make setup` leaves to a bare `dagster dev`: the home in `.env`, and Dagster's settings in that home."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from llmops_cli.instance import prepare_instance
from llmops_core.settings import load_settings
from resources.launcher import LocalRunLauncher

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(PROJECT / "deploy" / "write_env.py")]


def set_up(home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LLMOPS_HOME": str(home)}
    return subprocess.run(COMMAND, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)


def test_after_setup_a_bare_dagster_has_the_launcher_and_limits_of_llmops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = set_up(tmp_path / "home")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, LocalRunLauncher)
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        concurrency = instance.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit == 1
        (limit,) = concurrency.run_queue_config.tag_concurrency_limits  # type: ignore[union-attr]
        assert limit["key"] == "llmops/exclusive"
        for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR, InstigatorType.AUTO_MATERIALIZE):
            days = instance.get_tick_retention_settings(kind)
            assert days.keys() == set(TickStatus)
            assert 0 < days[TickStatus.SKIPPED] < days[TickStatus.FAILURE]


def test_setup_leaves_the_dagster_yaml_of_a_home_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    prepare_instance(load_settings())
    file = tmp_path / "home" / "dagster" / "dagster.yaml"
    file.write_text("telemetry: {enabled: false}\n")
    assert set_up(tmp_path / "home").returncode == 0
    assert file.read_text() == "telemetry: {enabled: false}\n"


def test_setup_says_why_a_home_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    done = set_up(tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: LLMOPS_HOME: ")
