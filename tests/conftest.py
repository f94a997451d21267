"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_core.settings import Settings, load_settings

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
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        yield load_settings()
