"""Which release answers while others are loaded, fail, or are replaced."""

from pathlib import Path
from typing import Any

import openai
import pytest

from llmops_core.assistant import Assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.manifest import GeneratorPin, IndexPin
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from tests.running_gateway import NAME, Running, promote, running_gateway, until

PROD = f"{NAME}@prod"
NO_INDEX = {"index": IndexPin(version="gone", snapshots={})}


def _behind(gateway: Running, state: str, release_id: str) -> dict[str, Any]:
    """What /readyz says of the channel prod, once it says this state of this release."""

    def look() -> dict[str, Any] | None:
        said = gateway.state()["behind"].get(PROD, {})
        return said if (said.get("state"), said.get("release_id")) == (state, release_id) else None

    return until(look)


def _serves(gateway: Running, release_id: str) -> None:
    until(lambda: True if gateway.state()["serving"] == {NAME: release_id} else None)


def test_a_release_that_does_not_load_leaves_the_one_before_serving(gateway: Running) -> None:
    first = gateway.state()["serving"][NAME]
    broken = promote(gateway.settings, **NO_INDEX)
    assert "There is no version gone" in _behind(gateway, "failed", broken)["reason"]
    assert gateway.state()["status"] == "ready"
    assert gateway.state()["serving"] == {NAME: first}
    assert gateway.raw()[1]["x-llmops-release"] == first
    assert promote(gateway.settings) == first
    until(lambda: None if gateway.state()["behind"] else True)


def test_an_engine_that_does_not_start_is_loading_until_it_failed(
    gateway: Running, models: Path, tmp_path: Path
) -> None:
    first = gateway.state()["serving"][NAME]
    tokenizer = models / "smollm2-135m-instruct" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    params = Releases(Lakehouse.open(gateway.settings), NAME).get("dev").manifest.generator.params
    generator = GeneratorPin(
        engine="local", model=f"path:{tmp_path}", revision="broken", context_window=2048, params=params
    )
    broken = promote(gateway.settings, generator=generator)
    assert _behind(gateway, "loading", broken)["reason"] is None
    assert "cannot be loaded" in _behind(gateway, "failed", broken)["reason"]
    assert promote(gateway.settings) == first
    until(lambda: None if gateway.state()["behind"] else True)


def test_a_gateway_whose_only_release_does_not_load_is_not_ready_and_says_why(
    shared_home: Settings, notes: Assistant
) -> None:
    broken = promote(shared_home, **NO_INDEX)
    with running_gateway(shared_home, status=503) as gateway:
        assert "There is no version gone" in _behind(gateway, "failed", broken)["reason"]
        assert (gateway.state()["status"], gateway.state()["serving"]) == ("not ready", {})
        with pytest.raises(openai.InternalServerError, match="There is no version gone") as refused:
            gateway.ask()
        assert refused.value.status_code == 503
        assert gateway.ask(model=f"{NAME}@dev").choices[0].message.content
        mended = promote(shared_home)
        _serves(gateway, mended)
        assert gateway.state()["behind"] == {}
