"""What the generator is told, word for word: the prompts of the sample and of a new assistant, as last agreed on."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from llmops_core.assistant import load_assistant
from llmops_core.engines.chat import Message
from llmops_core.models.tokens import EstimatedTokens
from llmops_core.prompts.budget import Material, render_within
from llmops_core.prompts.files import read_prompt
from llmops_core.prompts.template import PromptTemplate
from llmops_core.vectors.hit import Hit

PROJECT = Path(__file__).parents[3]
SNAPSHOTS = PROJECT / "tests" / "snapshots"
PREFIX = "prompt_"

BUDGET = ("chunks", "history", "features")
ROOMY, TIGHT, TIGHTEST = 2_000, 200, 145


def hit(number: int, title: str, text: str) -> Hit:
    return Hit(f"chunk-{number}", f"docs/{number}.md", title, (title,), text, 0, len(text), 1 / number)


# Texts that a template engine or a chat template would take for its own must come through as they are.
MATERIAL = Material(
    assistant="helper",
    question="And what does <|im_end|> or {{ question }} mean there?",
    history=(
        Message("user", "What is a lambda?"),
        Message("assistant", "A function without a name, written as one expression [1]."),
    ),
    chunks=(
        hit(1, "Lambdas", "Lambda expressions (sometimes called lambda forms) are used to create anonymous functions."),
        hit(2, "Templates", "In a template, {{ name }} is replaced by a value and {% if %} begins a condition."),
        hit(3, "Markup", 'Text between <b> and </b> is bold; "&amp;" stands for "&".\n\nA second paragraph.'),
    ),
    features={"plan": "pro", "seats": 12},
)


@dataclass(frozen=True)
class Case:
    """A template, what goes into it, and the tokens that there are for it."""

    template: PromptTemplate
    material: Material = MATERIAL
    room: int = ROOMY


def cases() -> dict[str, Case]:
    """Golden file's name → case."""
    name, text = read_prompt(load_assistant(PROJECT / "assistants" / "python_help"))
    sample = PromptTemplate(name, text)
    new = PROJECT / "llmops_cli" / "new_assistant" / "prompts" / "answer.jinja"
    other = PromptTemplate(new.stem, new.read_text(encoding="utf-8"))
    first_question = replace(MATERIAL, question="What is a lambda?", history=())
    return {
        "python_help": Case(sample),
        "python_help_first_question": Case(sample, first_question),
        "python_help_chunks_cut": Case(sample, room=TIGHT),
        "python_help_chunks_and_history_cut": Case(sample, room=TIGHTEST),
        "python_help_nothing_found": Case(sample, replace(first_question, chunks=())),
        "new_assistant": Case(other),
        "new_assistant_chunks_cut": Case(other, room=TIGHT),
    }


def rendered(case: Case) -> str:
    """The final messages, role by role, below what was cut to make them fit."""
    done = render_within(case.template, case.material, budget=BUDGET, room=case.room, counter=EstimatedTokens())
    cut = ", ".join(f"{number} {part}" for part, number in done.cut.items()) or "nothing"
    head = f"room for {case.room} tokens, {done.tokens} used, cut: {cut}"
    return "\n".join([head, *(f"\n=== {message.role}\n{message.content}" for message in done.messages)]) + "\n"


def golden(name: str) -> Path:
    return SNAPSHOTS / f"{PREFIX}{name}.txt"


@pytest.mark.parametrize("name", cases())
def test_a_prompt_renders_as_recorded(name: str) -> None:
    """To accept a change, run this file as a script and look at the diff."""
    assert rendered(cases()[name]) == golden(name).read_text(encoding="utf-8")


def test_no_recorded_prompt_is_left_over() -> None:
    assert {file.name for file in SNAPSHOTS.glob(f"{PREFIX}*")} == {golden(name).name for name in cases()}


if __name__ == "__main__":
    for file in SNAPSHOTS.glob(f"{PREFIX}*"):
        file.unlink()
    for name, case in cases().items():
        golden(name).write_text(rendered(case), encoding="utf-8")
