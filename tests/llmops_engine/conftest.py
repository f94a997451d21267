"""One real engine for all tests of this folder, and the means to speak to it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from llmops_core.engines.local import LocalEngine
from llmops_core.settings import load_settings

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def generator(models: Path) -> Path:
    return models / MODEL


@pytest.fixture(scope="session")
def engine(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    with LocalEngine(load_settings(home=tmp_path_factory.mktemp("home")), generator, MODEL) as engine:
        yield engine


@pytest.fixture
def http(engine: LocalEngine) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.base_url, timeout=120, trust_env=False) as client:
        yield client
