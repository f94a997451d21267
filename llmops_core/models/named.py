"""The models that `assistant.yaml` names, checked before anything runs: a misspelt one must not cost a whole build."""

from collections.abc import Iterator
from pathlib import Path

from llmops_core.assistant import FILE_NAME, Assistant, load_assistant
from llmops_core.errors import ConfigError, ModelError
from llmops_core.models.builtin import Role
from llmops_core.models.reference import FolderModel, parse_reference


def open_assistant(folder: Path) -> Assistant:
    """Load an assistant, and check the models that it names; reads no weights.

    Raises `ConfigError` with file, key and what is allowed, also for each model that cannot be meant.
    """
    assistant = load_assistant(folder)
    problems = [f"  {key}: {problem}" for key, model, role in _named(assistant) if (problem := _problem(model, role))]
    if problems:
        raise ConfigError(f"{assistant.folder / FILE_NAME} has {len(problems)} problem(s):\n" + "\n".join(problems))
    return assistant


def _named(assistant: Assistant) -> Iterator[tuple[str, str, Role]]:
    """Key, model and role."""
    yield "embedder.model", assistant.embedder.model, "embedder"
    for number, further in enumerate(assistant.embedder.beside):
        yield f"embedder.beside.{number}", further.model, "embedder"
    if assistant.retrieval.reranker:
        yield "retrieval.reranker.model", assistant.retrieval.reranker.model, "reranker"
    if assistant.generator.engine == "local":
        yield "generator.model", assistant.generator.model, "generator"


def _problem(model: str, role: Role) -> str | None:
    try:
        reference = parse_reference(model, role)
    except ModelError as error:
        return str(error)
    if isinstance(reference, FolderModel) and not reference.folder.is_dir():
        return f"Model '{model}': there is no folder {reference.folder}. Name the folder that holds the weights"
    return None
