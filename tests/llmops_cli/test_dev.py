"""What `llmops dev` says when it is ready."""

from pathlib import Path

import pytest

from llmops_cli.dev import ready_text

UI, GATEWAY = "http://127.0.0.1:3000", "http://127.0.0.1:8400"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ([], "no assistant has a release yet"),
        (["notes", "notes@dev", "notes@prod"], 'llmops ask "…"'),
    ],
)
def test_what_comes_first_depends_on_whether_there_is_a_release(project: Path, known: list[str], said: str) -> None:
    text = ready_text(UI, GATEWAY, known)
    assert said in text
    assert UI in text
    assert f"{GATEWAY}/v1" in text
    assert ("(model: notes)" in text) == bool(known)


def test_of_several_assistants_one_with_a_release_is_named(project: Path) -> None:
    letters = project / "assistants" / "letters"
    letters.mkdir()
    (letters / "assistant.yaml").write_text("name: letters\nsources: [{type: python_topics}]\n", encoding="utf-8")
    assert 'llmops ask --assistant notes "…"' in ready_text(UI, GATEWAY, ["notes", "notes@prod"])


def test_in_a_project_without_an_assistant_the_first_thing_is_to_make_one(project: Path) -> None:
    (project / "assistants" / "notes" / "assistant.yaml").unlink()
    assert "llmops init NAME --docs DIR" in ready_text(UI, GATEWAY, [])
