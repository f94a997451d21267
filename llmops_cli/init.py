"""`llmops init`."""

import json
import os
import re
from pathlib import Path

import click
import yaml

from llmops_cli.context import json_option, reports_errors
from llmops_cli.output import emit
from llmops_core.assistant import load_assistant
from llmops_core.corpus.document import Document
from llmops_core.corpus.read import read_all, sources_of
from llmops_core.errors import ConfigError, EmptyCorpusError
from llmops_core.settings import project_root

# The files of a new assistant; `assistant.yaml` has places for name, docs and schema.
TEMPLATE = Path(__file__).parent / "new_assistant"
FILES = ("assistant.yaml", "prompts/answer.jinja", "definitions.py")

WORKSPACE = "workspace.yaml"
WORKSPACE_HEAD = "# One code location an assistant; `llmops init` adds a line here.\nload_from:\n"


@click.command()
@click.argument("name")
@click.option("--docs", required=True, metavar="DIR", help="Folder with Markdown, text, HTML, PDF or DOCX files.")
@json_option
@reports_errors
def command(name: str, docs: str, as_json: bool) -> None:
    """Make the assistant NAME of a folder of documents: assistants/NAME, and its line in workspace.yaml."""
    root = project_root()
    folder = init(root, name, Path(docs).expanduser().resolve())
    documents = sum(isinstance(item, Document) for item in read_all(sources_of(load_assistant(folder))))
    text = (
        f"Made {os.path.relpath(folder)} with {documents} documents, and listed it in"
        f" {os.path.relpath(root / WORKSPACE)}; a `llmops dev` that runs knows it after a restart. Next:\n"
        f'  llmops build --assistant {name}\n  llmops ask --assistant {name} "…"'
    )
    emit({"assistant": name, "folder": str(folder), "documents": documents}, text, as_json=as_json)


def init(root: Path, name: str, docs: Path) -> Path:
    """Write the folder of a new assistant; raises `ConfigError`, and writes nothing, if that cannot work."""
    folder = root / "assistants" / name
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise ConfigError(f"{name!r} is no name for an assistant: use lower-case letters, digits and _, at most 63.")
    if folder.exists():
        raise ConfigError(f"{folder} exists already. Choose another name, or edit its assistant.yaml.")
    if not docs.is_dir():
        raise ConfigError(f"--docs: {docs} is not a folder. Name the one that holds your documents.")
    path = os.path.relpath(docs, folder) if docs.is_relative_to(root) else str(docs)
    schema = os.path.relpath(root / "docs" / "assistant.schema.json", folder)
    (folder / "prompts").mkdir(parents=True)
    for file in FILES:
        text = (TEMPLATE / file).read_text(encoding="utf-8")
        if file == "assistant.yaml":
            text = text.format(name=_scalar(name), docs=json.dumps(path, ensure_ascii=False), schema=schema)
        (folder / file).write_text(text, encoding="utf-8")
    try:
        if not any(isinstance(item, Document) for item in read_all(sources_of(load_assistant(folder)))):
            raise EmptyCorpusError(
                f"--docs: {docs} holds no file that can be read as Markdown, text, reStructuredText, HTML, PDF or"
                " DOCX. Put some there, or name another folder."
            )
    except BaseException:
        for file in FILES:
            (folder / file).unlink()
        (folder / "prompts").rmdir()
        folder.rmdir()
        raise
    _add_location(root / WORKSPACE, name)
    return folder


def _scalar(name: str) -> str:
    """The name in YAML, which takes some words for something else: no, on, null."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _add_location(workspace: Path, name: str) -> None:
    text = workspace.read_text(encoding="utf-8") if workspace.exists() else WORKSPACE_HEAD
    line = f"  - python_file: {{relative_path: assistants/{name}/definitions.py, location_name: {_scalar(name)}}}\n"
    if line not in text:
        workspace.write_text(text.rstrip("\n") + "\n" + line, encoding="utf-8")
