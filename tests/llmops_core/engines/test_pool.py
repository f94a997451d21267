"""The engines of a process: which run, and which are ended."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmops_core.engines.pool import EnginePool
from llmops_core.errors import ModelError
from llmops_core.models.adapters import store_adapter
from llmops_core.models.revisions import generator_revision
from llmops_core.release.manifest import GeneratorParams, GeneratorPin
from llmops_core.settings import Settings
from tests.adapters import make_adapter

MODEL = "smollm2-135m-instruct"


def _pin(settings: Settings, folder: Path, adapter: str | None = None) -> GeneratorPin:
    params, model = GeneratorParams(max_tokens=8, temperature=0.0, top_p=1.0), f"path:{folder}"
    revision = generator_revision(settings, model)
    return GeneratorPin(
        engine="local", model=model, revision=revision, adapter=adapter, context_window=8192, params=params
    )


def _copy(model: Path, folder: Path) -> Path:
    """A model of the same weights that has another file as well, and so another revision."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "notes.txt").write_text("made for a test")
    return folder


@pytest.fixture
def pool(settings: Settings) -> Iterator[EnginePool]:
    with EnginePool(settings) as pool:
        yield pool


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "llmops_engine" in child.cmdline()}


def test_an_engine_that_nothing_needs_any_more_is_ended(
    pool: EnginePool, settings: Settings, models: Path, tmp_path: Path
) -> None:
    old, new = (_pin(settings, folder) for folder in (models / MODEL, _copy(models / MODEL, tmp_path / "new")))
    before = _children()
    kept = [pool.endpoint(old), pool.endpoint(new)][1]
    assert len(_children() - before) == 2
    pool.keep({new.revision, "other"})
    assert len(_children() - before) == 1
    assert (pool.ready(old), pool.ready(new)) == (None, kept)


def test_an_adapter_is_loaded_past_a_proxy_of_the_environment(
    pool: EnginePool, settings: Settings, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = store_adapter(settings, make_adapter(models / MODEL, tmp_path / "adapter", rank=2, seed=1))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:7")
    assert pool.endpoint(_pin(settings, models / MODEL, adapter)).model == adapter


def test_weights_that_changed_since_the_release_was_made_are_not_started(
    pool: EnginePool, settings: Settings, models: Path, tmp_path: Path
) -> None:
    folder = _copy(models / MODEL, tmp_path / "model")
    pin = _pin(settings, folder)
    (folder / "notes.txt").write_text("changed")
    before = _children()
    with pytest.raises(ModelError, match=f"pins .* at {pin.revision}.* llmops build"):
        pool.endpoint(pin)
    assert _children() == before
