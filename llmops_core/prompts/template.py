"""A prompt template: Jinja in a sandbox, with a `system` and a `user` block.

Two blocks, because a chat has two voices: what the assistant is told to be, and the question with what was found for it.
Variables are `question`, `chunks` (each with `title`, `heading_path`, `text`, `document_id`), `features` and `assistant`.
An undefined variable is an error, so that a misspelt name is not silently empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmops_core.errors import PromptError
from llmops_core.vectors.hit import Hit

BLOCKS = ("system", "user")


class PromptTemplate:
    """A compiled template; raises `PromptError` naming the line when it does not compile."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
        )
        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise PromptError(f"Prompt {name}, line {error.lineno}: {error.message}") from error
        missing = [block for block in BLOCKS if block not in self._template.blocks]
        if missing:
            raise PromptError(
                f"Prompt {name}: block {' and '.join(missing)} is missing. A prompt has two blocks:"
                " {% block system %}…{% endblock %} and {% block user %}…{% endblock %}"
            )

    def render(
        self, *, assistant: str, question: str, chunks: Sequence[Hit], features: Mapping[str, Any]
    ) -> tuple[str, str]:
        """The system text and the user text; raises `PromptError` if the template fails on these values."""
        values = {"assistant": assistant, "question": question, "chunks": chunks, "features": features}
        try:
            context = self._template.new_context(values)
            system, user = ("".join(self._template.blocks[block](context)).strip() for block in BLOCKS)
        except Exception as error:  # a template's expressions raise whatever their operands do
            raise PromptError(f"Prompt {self.name} does not render: {error}") from error
        return system, user
