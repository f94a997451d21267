"""The job in the UI by which a channel goes back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from jobs.run_history import unneeded_runs
from llmops_assets.definitions import build_definitions
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import NAME, promote, release_by_words, write_assistant

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture
def assistant(home_with_models: Settings, tmp_path: Path) -> Assistant:
    """An assistant with two releases, the second on prod."""
    release_by_words(home_with_models, NOBODY)
    releases = Releases(Lakehouse.open(home_with_models), NAME)
    generator = releases.get("prod").manifest.generator
    promote(home_with_models, generator=generator.model_copy(update={"model": "newer"}))
    return write_assistant(tmp_path / "notes")


def test_it_goes_back_once_and_says_why_not_a_second_time(
    home_with_models: Settings, assistant: Assistant, instance: dg.DagsterInstance
) -> None:
    config: dict[str, Any] = {"ops": {"roll_back": {"config": {"message": "it is bad", "author": "ada"}}}}
    done = run_job(home_with_models, assistant, "release_rollback", config=config)
    releases = Releases(Lakehouse.open(home_with_models), NAME)
    assert releases.get("prod").number == 1
    last = releases.channels.events().filter(pl.col("channel") == "prod").row(-1, named=True)
    assert (last["action"], last["author"], last["reason"]) == ("rollback", "ada", "it is bad")
    with pytest.raises(PermanentError, match="prod has no release to go back to"):
        run_job(home_with_models, assistant, "release_rollback", config=config)
    config["ops"]["roll_back"]["config"]["to"] = "1"
    run_job(home_with_models, assistant, "release_rollback", config=config)
    # Maintenance knows whose runs they are, and keeps the latest that succeeded and the latest that failed.
    assert unneeded_runs(instance, assistant, datetime.now(UTC) + timedelta(days=60)) == [done.run_id]


def test_it_waits_for_no_build(assistant: Assistant) -> None:
    """Neither by a pool nor by the tag of which one goes at a time; and the queue lets it pass."""
    job = build_definitions(assistant.folder).resolve_job_def("release_rollback")
    assert {node.definition.pool for node in job.nodes if isinstance(node.definition, dg.OpDefinition)} == {None}
    assert "llmops/exclusive" not in job.tags
    assert int(job.tags["dagster/priority"]) > 0
