"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the built-in models, pulled once for all tests and runs of this project."""
    from llmops_core.models.store import pull
    from llmops_core.settings import load_settings

    settings = load_settings(home=PROJECT / ".llmops")
    pull(settings, names=None)
    return settings.models
