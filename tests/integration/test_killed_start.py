"""The first process of a new home is killed just before a write, again and again: the next one finds no half file."""

from pathlib import Path

from llmops_cli.instance import INSTANCE_FILE, instance_file, prepare_instance
from llmops_core.home import FORMAT, home_format
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.settings import load_settings
from tests.kills import Killing, needs_seccomp

pytestmark = needs_seccomp


def begin(home: Path) -> None:
    """What every command that builds does first."""
    settings = load_settings(home=home)
    prepare_instance(settings)
    Lakehouse.open(settings).prepare("helper")


def test_a_home_whose_first_process_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    settings = load_settings(home=home)

    def no_half_file() -> None:
        assert home_format(settings) in (None, FORMAT)
        if instance_file(settings).exists():
            assert instance_file(settings).read_text() == INSTANCE_FILE

    killing = Killing(home, begin, home)
    killing.undisturbed()
    for _ in killing.rounds(no_half_file):
        lakehouse = Lakehouse.open(settings)
        assert lakehouse.prepare("helper", dry_run=True) == []
        assert all(lakehouse.table("helper", name).read().is_empty() for name in TABLES)
        assert instance_file(settings).read_text() == INSTANCE_FILE
