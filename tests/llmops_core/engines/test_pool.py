"""The engines of a process: which run, and which are ended."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmops_core.engines.pool import EnginePool
from llmops_core.models.adapters import store_adapter
from llmops_core.release.manifest import GeneratorParams, GeneratorPin
from llmops_core.settings import Settings
from tests.adapters import make_adapter

MODEL = "smollm2-135m-instruct"


def _pin(model: Path, revision: str, adapter: str | None = None) -> GeneratorPin:
    params = GeneratorParams(max_tokens=8, temperature=0.0, top_p=1.0)
    return GeneratorPin(
        engine="local", model=f"path:{model}", revision=revision, adapter=adapter, context_window=8192, params=params
    )


@pytest.fixture
def pool(settings: Settings) -> Iterator[EnginePool]:
    with EnginePool(settings) as pool:
        yield pool


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "llmops_engine" in child.cmdline()}


def test_an_engine_that_nothing_needs_any_more_is_ended(pool: EnginePool, models: Path) -> None:
    old, new = (_pin(models / MODEL, revision) for revision in ("old", "new"))
    before = _children()
    kept = [pool.endpoint(old), pool.endpoint(new)][1]
    assert len(_children() - before) == 2
    pool.keep({"new", "other"})
    assert len(_children() - before) == 1
    assert (pool.ready(old), pool.ready(new)) == (None, kept)


def test_an_adapter_is_loaded_past_a_proxy_of_the_environment(
    pool: EnginePool, settings: Settings, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = store_adapter(settings, make_adapter(models / MODEL, tmp_path / "adapter", rank=2, seed=1))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:7")
    assert pool.endpoint(_pin(models / MODEL, "one", adapter)).model == adapter
