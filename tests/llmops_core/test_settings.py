"""Settings from the environment."""

from pathlib import Path

import pytest

from llmops_core.errors import ConfigError
from llmops_core.settings import load_settings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, with the working folder deep inside it."""
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    monkeypatch.delenv("LLMOPS_HOME", raising=False)
    return tmp_path


def test_without_any_variable_everything_is_below_the_project(project: Path) -> None:
    settings = load_settings()
    assert settings.home == project / ".llmops"
    assert settings.lancedb == str(project / ".llmops" / "lancedb")


def test_a_variable_that_is_set_to_nothing_is_not_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMOPS_HOME", "LLMOPS_PORT", "LLMOPS_DEVICE"):
        monkeypatch.setenv(name, "")
    assert load_settings().home == project / ".llmops"
    assert load_settings().port == 8400


def test_a_home_counts_from_the_working_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_HOME", "here")
    assert load_settings().home == project / "docs" / "here"


def test_every_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_EMBED_BUCKETS", "0")
    monkeypatch.setenv("LLMOPS_EXECUTOR", "threads")
    with pytest.raises(ConfigError, match=r"LLMOPS_EXECUTOR: .*'threads'.*LLMOPS_EMBED_BUCKETS: .*'0'"):
        load_settings()
