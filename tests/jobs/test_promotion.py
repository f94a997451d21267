"""The job in the UI by which a person moves a channel: the same gate as for a command."""

from pathlib import Path
from typing import Any

import pytest

from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.history import history
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import NAME, create, release_by_words, write_assistant


@pytest.fixture
def assistant(home_with_models: Settings, tmp_path: Path) -> Assistant:
    """An assistant without cases; its first release is on prod, its second on no channel."""
    release_by_words(home_with_models, "http://127.0.0.1:9/v1")
    generator = Releases(Lakehouse.open(home_with_models), NAME).get("prod").manifest.generator
    create(home_with_models, generator=generator.model_copy(update={"model": "newer"}))
    return write_assistant(tmp_path / "notes")


def test_it_asks_the_gate_and_keeps_who_said_so_and_why(home_with_models: Settings, assistant: Assistant) -> None:
    def run(**config: Any) -> None:
        said = {"release": "2", "author": "ada", **config}
        run_job(home_with_models, assistant, "release_promote", config={"ops": {"promote": {"config": said}}})

    with pytest.raises(PermanentError, match="A person decides, with a reason"):
        run()
    run(message="tried by hand")
    releases = Releases(Lakehouse.open(home_with_models), NAME)
    assert releases.get("prod").number == 2
    last = history(releases.channels.events())[-1]
    assert (last.action, last.author, last.reason, last.outcome) == ("promote", "ada", "tried by hand", "inconclusive")
