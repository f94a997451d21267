"""Prompt templates as files of the assistant's folder."""

from llmops_core.assistant import FILE_NAME, Assistant
from llmops_core.errors import PromptError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.prompts.template import PromptTemplate
from llmops_core.prompts.versions import PromptVersion, PromptVersions


def read_prompt(assistant: Assistant) -> tuple[str, str]:
    """The name (file name without suffix) and text of the assistant's template, checked to compile.

    Raises `PromptError` naming file and line.
    """
    file = assistant.path(assistant.prompt.template)
    settings = assistant.folder / FILE_NAME
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PromptError(f"{file} does not exist. Write it, or correct prompt.template in {settings}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{file} cannot be read: {error}. It is prompt.template of {settings}") from error
    try:
        PromptTemplate(file.stem, text)
    except PromptError as error:
        raise PromptError(f"{file}: {error}") from error
    return file.stem, text


def register_prompt(lakehouse: Lakehouse, assistant: Assistant, provenance: Provenance) -> tuple[PromptVersion, bool]:
    """Give the assistant's template its version; False if it had it already."""
    name, text = read_prompt(assistant)
    return PromptVersions(lakehouse, assistant.name).register(
        name,
        text,
        author=f"run {provenance.run_id}",
        message=f"from {assistant.prompt.template}",
        provenance=provenance,
    )
