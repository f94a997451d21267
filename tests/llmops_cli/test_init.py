"""`llmops init`: what it writes can be read again by everything that reads it, and is said."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from llmops_cli.build import build
from llmops_cli.main import main
from llmops_core.assistant import load_assistant
from llmops_core.settings import load_settings

DOCS = "assistants/notes/docs"


@pytest.mark.parametrize("name", ["no", "null", "on", "true", "letters"])
def test_a_name_that_yaml_takes_for_something_else_is_written_so_that_it_is_a_name(project: Path, name: str) -> None:
    done = CliRunner().invoke(main, ["init", name, "--docs", DOCS])
    assert done.exit_code == 0, done.output
    assert load_assistant(project / "assistants" / name).name == name
    locations = yaml.safe_load((project / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert [location["python_file"]["location_name"] for location in locations] == ["notes", name]


def test_an_assistant_with_such_a_name_is_built_and_found(project: Path) -> None:
    CliRunner().invoke(main, ["init", "no", "--docs", DOCS])
    assert build(load_settings(), load_assistant(project / "assistants" / "no"))["documents"] == 1
    assert "coffee machine" in CliRunner().invoke(main, ["search", "coffee", "--assistant", "no"]).stdout


def test_it_says_what_it_made_and_changed_and_what_comes_next(project: Path) -> None:
    said = CliRunner().invoke(main, ["init", "letters", "--docs", DOCS]).stdout
    for part in ("assistants/letters with 1 documents", "workspace.yaml", "llmops build --assistant letters"):
        assert part in said


def test_the_generator_that_is_written_as_a_comment_is_one(project: Path) -> None:
    CliRunner().invoke(main, ["init", "letters", "--docs", DOCS])
    file = project / "assistants" / "letters" / "assistant.yaml"
    head, _, block = file.read_text(encoding="utf-8").partition("# generator:\n")
    assert block
    uncommented = "".join(line.removeprefix("# ") for line in ("# generator:\n" + block).splitlines(keepends=True))
    file.write_text(head + uncommented, encoding="utf-8")
    generator = load_assistant(file.parent).generator
    assert (generator.engine, generator.base_url) == ("openai", "http://127.0.0.1:8000/v1")
    assert generator.api_key_env == "MY_SERVER_KEY"
