"""A home is bound to its place: Iceberg's tables name their files by absolute paths."""

import json
import shutil
from pathlib import Path

import pytest

from llmops_core.errors import ConfigError
from llmops_core.home import FILE_NAME, mark_home, open_home
from llmops_core.settings import Settings, load_settings


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    settings = load_settings(home=tmp_path / "home")
    open_home(settings)
    return settings


def test_a_home_is_opened_again_also_through_a_link(made: Settings, tmp_path: Path) -> None:
    open_home(made)
    (tmp_path / "link").symlink_to(made.home)
    open_home(load_settings(home=tmp_path / "link"))


def test_a_copied_home_is_refused_with_both_places_and_the_way_out(made: Settings, tmp_path: Path) -> None:
    shutil.copytree(made.home, tmp_path / "copy")
    with pytest.raises(ConfigError) as refused:
        open_home(load_settings(home=tmp_path / "copy"))
    for part in (str(tmp_path / "copy"), str(made.home), "Move it back", "link", "build anew"):
        assert part in str(refused.value)


def test_a_moved_home_is_refused_until_it_is_moved_back_or_a_link_is_left(made: Settings, tmp_path: Path) -> None:
    moved = load_settings(home=tmp_path / "moved")
    made.home.rename(moved.home)
    with pytest.raises(ConfigError, match="copied or moved"):
        open_home(moved)
    made.home.symlink_to(moved.home)
    open_home(moved)
    made.home.unlink()
    moved.home.rename(made.home)
    open_home(made)


def test_a_home_that_was_marked_without_its_path_is_used_and_gets_it_with_the_next_mark(made: Settings) -> None:
    file = made.home / FILE_NAME
    marks = json.loads(file.read_text())
    del marks["path"]
    file.write_text(json.dumps(marks))
    open_home(made)
    mark_home(made)
    assert json.loads(file.read_text())["path"] == str(made.home)
