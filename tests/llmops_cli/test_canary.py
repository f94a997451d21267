"""`llmops release canary`: what it shows of an experiment, and its end by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmops_cli.main import main
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings
from tests.llmops_core.release.test_canary import ask, begun, on, with_releases
from tests.llmops_core.release.test_manifest import manifest
from tests.running_gateway import write_assistant


@pytest.fixture
def lake(home_with_models: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lakehouse:
    monkeypatch.setenv("LLMOPS_ASSISTANT", str(write_assistant(tmp_path / "helper", name="helper").folder))
    lakehouse = Lakehouse.open(home_with_models)
    lakehouse.prepare("helper")
    return with_releases(lakehouse)


def said(*arguments: str) -> Any:
    done = CliRunner().invoke(main, ["release", "canary", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_experiment_is_shown_with_its_arms_and_what_it_waits_for(lake: Lakehouse) -> None:
    assert said() == {"experiment": None}
    experiment = begun(lake)
    ask(lake, experiment, users=10)
    shown = said()
    assert (shown["experiment"], shown["release_id"]) == (experiment.experiment, manifest(prompt=2).release_id)
    assert (shown["outcome"], shown["plan"]["share"]) == ("waiting", 0.5)
    assert sum(shown["requests"].values()) == 10
    assert [metric["metric"] for metric in shown["metrics"]] == ["errors", "empty"]
    text = CliRunner().invoke(main, ["release", "canary"]).stdout
    assert text.startswith("Waiting: errors: ")
    assert "bet on harm" in text


def test_it_is_stopped_by_hand_with_a_reason(lake: Lakehouse) -> None:
    experiment = begun(lake)
    assert said("stop", "--message", "wrong prompt")["experiment"] == experiment.experiment
    assert on(lake) == {"prod": manifest().release_id}
    done = CliRunner().invoke(main, ["release", "canary", "stop"])
    assert done.exit_code != 0
    assert "No canary is running" in done.output
