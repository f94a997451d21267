"""Prompt templates: two blocks, a sandbox, no silent gaps."""

import pytest

from llmops_core.errors import PromptError
from llmops_core.prompts.template import PromptTemplate
from llmops_core.vectors.hit import Hit

GOOD = "{% block system %}Be brief, {{ assistant }}.{% endblock %}{% block user %}Q: {{ question }}{% endblock %}"


def user(text: str) -> str:
    return "{% block system %}s{% endblock %}{% block user %}" + text + "{% endblock %}"


def render(text: str) -> tuple[str, str]:
    hit = Hit("c", "d", "T", (), "text", 0, 4, 1.0)
    return PromptTemplate("answer", text).render(assistant="helper", question="Why?", chunks=[hit], features={})


def test_the_blocks_become_the_two_voices() -> None:
    assert render(GOOD) == ("Be brief, helper.", "Q: Why?")


def test_what_a_user_writes_is_not_a_template() -> None:
    template = PromptTemplate("answer", GOOD)
    _, text = template.render(assistant="a", question="{{ 7 * 7 }}", chunks=[], features={})
    assert text == "Q: {{ 7 * 7 }}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% block system %}a{% endblock %}", "block user is missing"),
        ("no blocks", "block system and user is missing"),
        ("{% block system %}\n{% if %}{% endblock %}", "line 2"),
    ],
)
def test_a_template_that_cannot_work_is_refused_when_it_is_read(text: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        PromptTemplate("answer", text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ qestion }}",
        "{{ question.__class__.__mro__ }}",
        "{{ chunks.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ '%(name)s' % {} }}",
        "{{ chunks | sort(attribute='nothing.at.all') | list }}",
        "{% for x in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_misspelt_name_or_a_way_out_of_the_sandbox_is_an_error(text: str) -> None:
    with pytest.raises(PromptError, match="Prompt answer does not render"):
        render(user(text))
