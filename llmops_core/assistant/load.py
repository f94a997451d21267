"""Reads `assistant.yaml`, and says what is wrong with it.

Strict on purpose: an unknown key is an error, since a misspelt option that is silently ignored is worse than none. Every
error names the file, the key and what is allowed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from llmops_core.assistant.schema import Assistant
from llmops_core.assistant.section import Section
from llmops_core.assistant.sources import Source
from llmops_core.errors import ConfigError

FILE_NAME = "assistant.yaml"


def load_assistant(folder: Path) -> Assistant:
    """Read and validate `<folder>/assistant.yaml`; raises `ConfigError` with file, key and what is allowed."""
    file = folder / FILE_NAME
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{file} does not exist. Name the assistant's folder with --assistant DIR (or LLMOPS_ASSISTANT), or make one:"
            " llmops init NAME --docs DIR"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Check its permissions") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected keys and values such as 'name: my_assistant', found {type(data).__name__}")
    if "folder" in data:
        raise ConfigError(f"{file}: folder: unknown key. Allowed here: {_allowed(Assistant)}")
    try:
        return Assistant.model_validate({**data, "folder": folder.resolve()}, context={"folder": folder})
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(e)}" for e in error.errors())
        raise ConfigError(f"{file} has {error.error_count()} problem(s):\n{problems}") from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of `assistant.yaml`, for editors."""
    schema = Assistant.model_json_schema()
    schema["properties"].pop("folder")
    schema["title"] = FILE_NAME
    return schema


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice: of the two values YAML would take the last, and drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _explain(error: Any) -> str:
    """One line of a validation error: the key, what is wrong, what is allowed."""
    location = error["loc"]
    # The location of a source's key has the source's type after its number; in the file that is no key.
    key = ".".join(str(part) for n, part in enumerate(location) if not (location[0] == "sources" and n == 2))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key. Allowed here: {_allowed(_section_at(location[:-1]))}"
    if error["type"] == "missing":
        return f"{key}: is required"
    # A whole section is not repeated: it is long, and a source's address may hold a password.
    found = "" if isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{found}"


def _section_at(location: tuple[str | int, ...]) -> type[Section]:
    """Follow a validation error's location to the section that it happened in."""
    if location[:1] == ("sources",):
        return next(s for s in _sections(Source) if location[2] in get_args(s.model_fields["type"].annotation))
    section: type[Section] = Assistant
    for part in location:
        field = section.model_fields.get(str(part))
        section = next(_sections(field.annotation), section) if field else section
    return section


def _sections(kind: Any) -> Iterator[type[Section]]:
    """The sections in a type: itself, or those that it is a list or a choice of."""
    if isinstance(kind, type) and issubclass(kind, Section):
        yield kind
    for inner in get_args(kind):
        yield from _sections(inner)


def _allowed(section: type[Section]) -> str:
    return ", ".join(name for name in section.model_fields if name != "folder")
