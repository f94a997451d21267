"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from llmops_cli.instance import prepare_instance
from llmops_core.assistant import Assistant
from llmops_core.settings import Settings, load_settings
from tests.fake_engine import FakeEngine
from tests.running_gateway import Running, running_gateway, write_assistant

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the built-in models, pulled once for all tests and runs of this project."""
    from llmops_core.models.store import pull

    settings = load_settings(home=PROJECT / ".llmops")
    pull(settings, names=None)
    return settings.models


@pytest.fixture
def home_with_models(tmp_path: Path, models: Path) -> Iterator[Settings]:
    """Settings of an empty home that has the models; commands and runs in this process use it too."""
    with _in_home(tmp_path / "home", models) as settings:
        yield settings


@pytest.fixture
def instance(home_with_models: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance of an empty home."""
    prepare_instance(home_with_models)
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture(scope="module")
def shared_home(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Like `home_with_models`, one for all tests of a file."""
    with _in_home(tmp_path_factory.mktemp("shared") / "home", models) as settings:
        yield settings


@pytest.fixture(scope="module")
def fake_engine() -> Iterator[FakeEngine]:
    """A generator that does as it is told."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def notes(shared_home: Settings, fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    """A small assistant, built, in front of the fake engine."""
    from llmops_cli.build import build

    generator = {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url}
    assistant = write_assistant(tmp_path_factory.mktemp("notes"), generator=generator)
    build(shared_home, assistant)
    return assistant


@pytest.fixture(scope="module")
def gateway(shared_home: Settings, notes: Assistant) -> Iterator[Running]:
    """A gateway that serves `notes`."""
    with running_gateway(shared_home) as running:
        yield running


@contextmanager
def _in_home(home: Path, models: Path) -> Iterator[Settings]:
    # A folder of its own: what tests store there (adapters) is not for everyone.
    (home / "models").mkdir(parents=True)
    for model in models.iterdir():
        if model.name != "adapters":
            (home / "models" / model.name).symlink_to(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        yield load_settings()
