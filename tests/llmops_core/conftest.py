"""A lakehouse of its own for each test."""

from pathlib import Path

import pytest

from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def lakehouse(settings: Settings) -> Lakehouse:
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare("helper")
    return lakehouse
