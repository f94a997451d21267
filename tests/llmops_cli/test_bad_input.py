"""Bad input, each with the message it gets: what is wrong, where, and the way out, for people and for programs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from llmops_cli.gateway_process import gateway
from llmops_cli.main import main
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import load_settings

NEED_A_RELEASE = [
    "search coffee",
    "ask coffee",
    "evaluate",
    "release list",
    "release show dev",
    "release create",
    "release promote 1 prod",
]
MINIMAL = "name: notes\nsources: [{type: folder, path: docs}]\n"


def refused(*arguments: str) -> str:
    """Run a command that cannot work; its message, which standard error and the one JSON object both have."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code != 0
    return _message(result.stdout, result.stderr)


def _message(stdout: str, stderr: str) -> str:
    said = json.loads(stdout)
    assert set(said) == {"error"}
    assert set(said["error"]) == {"type", "message"}
    message: str = said["error"]["message"]
    assert f"Error: {message}" in stderr
    assert "Traceback" not in stderr
    return message


def notes(project: Path) -> Path:
    """The folder of the assistant."""
    return project / "assistants" / "notes"


def write(project: Path, text: str) -> None:
    """Write `assistant.yaml` of the assistant."""
    (notes(project) / "assistant.yaml").write_text(text, encoding="utf-8")


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def unused_port() -> int:
    with taken_port() as port:
        return port


# assistant.yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [\n", ["not valid YAML", "line 2"]),
        ("", ["'name: my_assistant'"]),
        ("name: notes\n", ["sources: is required"]),
        (MINIMAL + "retreival: {top_k: 3}\n", ["retreival: unknown key", "retrieval"]),
        (MINIMAL + "retrieval: {topk: 3}\n", ["retrieval.topk: unknown key", "top_k"]),
        (MINIMAL + "chunking: {size: large}\n", ["chunking.size", "integer", "'large'"]),
        (MINIMAL + "retrieval: {top_k: 0}\n", ["retrieval.top_k", "greater than or equal to 1", "it is 0"]),
        (MINIMAL + "generator: {engine: cloud}\n", ["generator.engine", "'local' or 'openai'", "'cloud'"]),
        (MINIMAL + "embedder: {model: minilmm}\n", ["embedder.model: Unknown embedder 'minilmm'", "minilm, bge-small"]),
        (MINIMAL + "embedder: {beside: [big]}\n", ["embedder.beside.0: Unknown embedder 'big'", "hf:<repo>@<commit>"]),
        (MINIMAL + "embedder: {model: 'path:/no/model'}\n", ["embedder.model", "there is no folder /no/model"]),
        (MINIMAL + "embedder: {model: 'hf:some/model'}\n", ["embedder.model", "hf:some/model@<commit>"]),
        (
            MINIMAL + "retrieval: {reranker: {model: m}}\n",
            ["retrieval.reranker.model: Unknown reranker 'm'", "ms-marco"],
        ),
        (MINIMAL + "generator: {model: gpt}\n", ["generator.model: Unknown generator 'gpt'", "smollm2-135m-instruct"]),
        (MINIMAL + "generator: {model: minilm}\n", ["generator.model", "role embedder", "smollm2-135m-instruct"]),
    ],
)
def test_a_wrong_assistant_yaml_is_refused_with_file_key_and_what_is_allowed(
    project: Path, text: str, said: list[str]
) -> None:
    write(project, text)
    message = refused("build")
    for part in (str(notes(project) / "assistant.yaml"), *said):
        assert part in message


def test_all_models_that_are_unknown_are_named_at_once(project: Path) -> None:
    write(project, MINIMAL + "embedder: {model: one}\ngenerator: {model: two}\n")
    message = refused("build")
    assert "2 problem(s)" in message
    assert "embedder.model: Unknown embedder 'one'" in message
    assert "generator.model: Unknown generator 'two'" in message


@pytest.mark.parametrize("command", ["quickstart", "build", "ingest", "maintain", *NEED_A_RELEASE])
def test_every_command_names_a_wrong_assistant_yaml(project: Path, command: str) -> None:
    write(project, MINIMAL + "retreival: {}\n")
    assert f"{notes(project) / 'assistant.yaml'} has 1 problem(s)" in refused(*command.split())


@pytest.mark.parametrize("named", ["nots", "assistants/notes/docs", "assistants/notes/assistant.yaml"])
def test_what_is_neither_folder_nor_name_of_an_assistant_is_answered_with_those_there_are(
    project: Path, named: str
) -> None:
    message = refused("build", "--assistant", named)
    for part in (f"--assistant {named}: ", f"{named}/assistant.yaml does not exist", "The project has: notes."):
        assert part in message
    assert "llmops init NAME --docs DIR" in message


def test_a_project_without_an_assistant_says_how_to_make_one(project: Path) -> None:
    (notes(project) / "assistant.yaml").unlink()
    message = refused("build")
    assert str(project / "assistants") in message
    assert "llmops init NAME --docs DIR" in message


def test_of_two_assistants_one_has_to_be_named(project: Path) -> None:
    (project / "assistants" / "letters").mkdir()
    (project / "assistants" / "letters" / "assistant.yaml").write_text(MINIMAL.replace("notes", "letters"))
    message = refused("build")
    assert "--assistant NAME" in message
    assert message.endswith(": letters, notes")


# What a build reads


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{type: folder, path: dosc}", ["assistants/notes/dosc does not exist", "sources.path in assistant.yaml"]),
        ("{type: folder, path: docs/coffee.md}", ["docs/coffee.md is not a folder", "glob"]),
        ("{type: jsonl, path: corpus.jsonl}", ["notes/corpus.jsonl does not exist", "sources.path in assistant.yaml"]),
        ("{type: folder, path: docs, glob: '*.rst'}", ["No readable document in folder:docs/*.rst", "assistant.yaml"]),
    ],
)
def test_a_source_that_gives_nothing_is_named_with_its_place(project: Path, source: str, said: list[str]) -> None:
    write(project, f"name: notes\nsources: [{source}]\n")
    message = refused("build")
    for part in said:
        assert part in message


def test_an_empty_corpus_says_why_each_file_was_rejected(project: Path) -> None:
    (notes(project) / "docs" / "coffee.md").write_bytes(b"caf\xe9")
    (notes(project) / "docs" / "plan.dwg").write_bytes(b"AC1032")
    message = refused("build")
    assert "No readable document in folder:docs (2 rejected)" in message
    assert "docs/coffee.md: " in message
    assert "docs/plan.dwg: suffix not supported: .dwg; supported: .md" in message


def test_a_build_that_fails_leaves_one_json_object_on_the_standard_output_of_its_process(project: Path) -> None:
    (notes(project) / "docs" / "coffee.md").unlink()
    command = [sys.executable, "-m", "llmops_cli.main", "build", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "No readable document in folder:docs" in _message(done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, ["does not exist", "prompt.template in"]),
        ("{% block system %}a{% endblock %}\n{% block user %}{{ question }{% endblock %}", ["line 2"]),
        ("Answer: {{ question }}", ["block system and user is missing", "{% block user %}"]),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named_before_anything_is_built(
    project: Path, text: str | None, said: list[str]
) -> None:
    prompt = notes(project) / "prompts" / "answer.jinja"
    prompt.unlink()
    if text is not None:
        prompt.write_text(text, encoding="utf-8")
    message = refused("build")
    for part in (str(prompt), *said):
        assert part in message
    assert Lakehouse.open(load_settings()).assistants() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("retrieval: {language: Klingon}", ["retrieval.language", "'Klingon'", "English, Finnish"]),
        ("generator: {adapter: tone}", ["assistants/notes/tone", "generator.adapter", "adapter_config.json"]),
    ],
)
def test_what_only_the_build_can_see_names_its_key_too(built: Path, more: str, said: list[str]) -> None:
    write(built, f"{MINIMAL}{more}\n")
    message = refused("build")
    for part in said:
        assert part in message


# Cases


def test_evaluating_without_cases_says_how_to_write_them(built: Path) -> None:
    message = refused("evaluate")
    for part in (str(notes(built) / "assistant.yaml"), "evaluation.cases", "case_id, question, gold_document_ids"):
        assert part in message


def test_a_case_file_that_is_missing_is_named_with_its_key(built: Path) -> None:
    write(built, MINIMAL + "evaluation: {cases: cases.jsonl}\n")
    message = refused("evaluate")
    assert f"{notes(built) / 'cases.jsonl'} does not exist" in message
    assert "evaluation.cases in assistant.yaml" in message


def test_everything_that_is_wrong_with_a_case_file_is_said_with_its_line(built: Path) -> None:
    write(built, MINIMAL + "evaluation: {cases: cases.jsonl}\n")
    file = notes(built) / "cases.jsonl"
    lines = (
        '{"case_id": "q1", "question": "Where is the coffee?", "gold_document_ids": ["docs/cofee.md"]}',
        '{"case_id": "q2", "question": ',
        '{"case_id": "q3", "question": "Where is the tea?"}',
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    message = refused("evaluate")
    assert f'{file}:1: case "q1": gold_document_ids: not in the corpus: "docs/cofee.md"' in message
    assert 'did you mean "docs/coffee.md"?' in message
    assert f"{file}:2: is not valid JSON" in message
    assert f"{file}:3: gold_document_ids: is required" in message
    assert "correct them in the case file" in message


# Releases


@pytest.mark.parametrize("command", NEED_A_RELEASE)
def test_before_the_first_build_a_command_says_to_build(project: Path, command: str) -> None:
    write(project, MINIMAL + "evaluation: {cases: cases.jsonl}\n")
    message = refused(*command.split())
    assert "llmops build" in message
    if command != "release create":  # it fails in a run, with the words of the asset
        assert f". Looked in {load_settings().home} (LLMOPS_HOME)." in message


@pytest.mark.parametrize(
    "command",
    [
        "release show 0123456789abcdef",
        "release promote 0123456789abcdef prod",
        "search coffee --release 0123456789abcdef",
        "evaluate --release 0123456789abcdef",
    ],
)
def test_an_unknown_release_says_where_the_known_ones_are_listed(built: Path, command: str) -> None:
    write(built, MINIMAL + "evaluation: {cases: cases.jsonl}\n")
    message = refused(*command.split())
    assert "there is no release '0123456789abcdef'" in message
    assert "llmops release list" in message


def test_an_unknown_channel_is_answered_with_the_known_ones(built: Path) -> None:
    message = refused("release", "promote", "1", "production")
    assert "'production' is not one of 'dev', 'staging', 'prod'" in message


# Asking


@pytest.fixture(scope="module")
def gateway_port(built_project: tuple[Path, Path]) -> Iterator[int]:
    """A gateway that serves the built project."""
    _, home = built_project
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(home))
        with gateway(load_settings(port=0), "notes") as url:
            yield httpx.URL(url).port or 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Where is it?", "--release", "0123456789abcdef"], ["no release '0123456789abcdef'", "llmops release list"]),
        (["  "], ["blank", "the user's question"]),
        (["Where is it?"], ["http://127.0.0.1:9/v1", "Is it running?"]),
    ],
)
def test_ask_says_what_the_gateway_says(
    built: Path, gateway_port: int, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: list[str]
) -> None:
    monkeypatch.setenv("LLMOPS_PORT", str(gateway_port))
    message = refused("ask", *arguments)
    for part in said:
        assert part in message


# Ports, homes, and what is typed


def test_a_port_in_use_is_named_with_the_options_that_choose_another(project: Path) -> None:
    with taken_port() as port:
        message = refused("serve", "--port", str(port))
    for part in (f"Port {port} on 127.0.0.1", "in use", "--port or LLMOPS_PORT"):
        assert part in message


@pytest.mark.parametrize("option", ["--ui-port", "--port"])
def test_dev_names_the_port_that_is_in_use_and_its_option(project: Path, option: str) -> None:
    free = unused_port()
    with taken_port() as port:
        ports = {"--ui-port": free, "--port": free, option: port}
        result = CliRunner().invoke(main, ["dev", *(str(part) for pair in ports.items() for part in pair)])
    assert result.exit_code == 1
    assert f"Port {port}" in result.stderr
    assert f"set {option}" in result.stderr


def test_a_gateway_for_the_whole_network_is_refused(project: Path) -> None:
    message = refused("serve", "--host", "0.0.0.0", "--port", "0")
    assert "does not bind 0.0.0.0" in message
    assert "proxy with authentication" in message


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LLMOPS_PORT", "abc", ["integer", "'abc'"]),
        ("LLMOPS_DEVICE", "gpu", ["'cuda'", "'gpu'"]),
        ("LLMOPS_HOME", "workspace.yaml", ["workspace.yaml cannot hold data", "folder that can be written"]),
    ],
)
def test_a_wrong_setting_names_its_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    message = refused("build")
    for part in (variable, *said):
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["biuld"], "No such command 'biuld'"),
        (["build", "--assistent", "x"], "--assistent"),
        (["search"], "Missing argument 'QUESTION'"),
        (["search", "coffee", "--top-k", "0"], "'--top-k': 0 is not in the range"),
        (["serve", "--port", "70000"], "'--port': 70000 is not in the range"),
        (["init", "letters"], "Missing option '--docs'"),
        (["models", "pull", "gpt"], "Unknown model 'gpt'. Allowed: minilm"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_an_error_object_too(
    project: Path, arguments: list[str], said: str
) -> None:
    assert said in refused(*arguments)


# A new assistant


@pytest.mark.parametrize(
    ("name", "docs", "said"),
    [
        ("My Bot", "assistants/notes/docs", ["'My Bot'", "lower-case letters, digits and _"]),
        ("../letters", "assistants/notes/docs", ["'../letters'", "lower-case letters, digits and _"]),
        ("notes", "assistants/notes/docs", ["assistants/notes exists already", "another name"]),
        ("letters", "nowhere", ["--docs", "nowhere is not a folder"]),
        ("letters", "workspace.yaml", ["--docs", "workspace.yaml is not a folder"]),
        ("letters", "assistants/notes/prompts", ["--docs", "assistants/notes/prompts", "Markdown, text"]),
    ],
)
def test_an_assistant_that_cannot_be_made_leaves_the_project_as_it_was(
    project: Path, name: str, docs: str, said: list[str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in project.rglob("*") if file.is_file()}

    before = files()
    message = refused("init", name, "--docs", docs)
    for part in said:
        assert part in message
    assert files() == before
    assert sorted(folder.name for folder in (project / "assistants").iterdir()) == ["notes"]
