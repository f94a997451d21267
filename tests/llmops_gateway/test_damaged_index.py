"""A gateway whose index is damaged says so, and answers again once a build has made it anew."""

import shutil
from pathlib import Path

import openai
import pytest

from llmops_cli.build import build
from llmops_core.assistant import Assistant
from tests.running_gateway import NAME, Running


@pytest.mark.parametrize("damage", ["data files missing", "data files truncated", "folder missing"])
def test_a_damaged_index_is_an_error_that_says_so_until_a_build_has_made_it_anew(
    gateway: Running, notes: Assistant, damage: str
) -> None:
    before = gateway.ask().model_extra["llmops"]["chunks"]
    (table,) = Path(gateway.settings.lancedb, NAME).glob("*.lance")
    if damage == "folder missing":
        shutil.rmtree(table)
    else:
        for file in table.glob("data/*"):
            file.unlink() if damage == "data files missing" else file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(openai.InternalServerError, match=r"Cannot read version .*llmops build") as caught:
        gateway.client.with_options(max_retries=0).chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "How long does bread dough rest?"}]
        )
    assert caught.value.status_code == 503
    build(gateway.settings, notes)
    assert gateway.ask().model_extra["llmops"]["chunks"] == before
