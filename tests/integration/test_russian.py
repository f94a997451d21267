"""An assistant over Russian documents, from `llmops init` to a cited answer and its row in the log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from llmops_cli.main import main
from llmops_core.settings import Settings
from tests.fake_engine import FakeEngine
from tests.running_gateway import Running, running_gateway

DOCUMENTS = {
    "Напитки/зелёный чай.md": "# Чай\n\nЗелёный чай заваривают две минуты водой, нагретой до восьмидесяти градусов.\n",
    "хлеб.txt": "Тесто отдыхает один час, и только потом хлеб выпекают.\n",
    "велосипед.md": "# Велосипед\n\nЦепь велосипеда смазывают через каждые триста километров.\n",
}
QUESTION = "До скольких градусов греть воду для зеленого чая?"
TEA = "Напитки/зелёный чай.md"


@pytest.fixture(scope="module")
def project(shared_home: Settings, fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the assistant `spravka`, made by the command line and built."""
    root = tmp_path_factory.mktemp("проект")
    (root / "workspace.yaml").write_text("load_from:\n", encoding="utf-8")
    for name, text in DOCUMENTS.items():
        (root / "Документы" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "Документы" / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("LLMOPS_ASSISTANT", raising=False)
        assert run("init", "spravka", "--docs", "Документы")["documents"] == len(DOCUMENTS)
        file = root / "assistants" / "spravka" / "assistant.yaml"
        assert "Документы" in file.read_text(encoding="utf-8")
        described = {
            **yaml.safe_load(file.read_text(encoding="utf-8")),
            "embedder": {"model": "multilingual-e5-small"},
            "retrieval": {"language": "Russian"},
            "generator": {"engine": "openai", "model": "fake", "base_url": fake_engine.base_url},
        }
        file.write_text(yaml.safe_dump(described, allow_unicode=True), encoding="utf-8")
        assert run("build")["documents"] == len(DOCUMENTS)
        yield root


@pytest.fixture(scope="module")
def gateway(shared_home: Settings, project: Path) -> Iterator[Running]:
    with running_gateway(shared_home) as running:
        yield running


def run(*arguments: str) -> dict[str, Any]:
    """What a command says with --json."""
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def cited_text(project: Path, chunk: dict[str, Any]) -> str:
    name: str = chunk["document_id"].partition("/")[2]
    return (project / "Документы" / name).read_text(encoding="utf-8")[chunk["char_start"] : chunk["char_end"]]


@pytest.mark.usefixtures("project")
def test_search_finds_the_document_and_shows_its_text() -> None:
    hit = run("search", QUESTION, "--top-k", "1")["hits"][0]
    assert hit["document_id"].endswith(TEA)
    done = CliRunner().invoke(main, ["search", QUESTION, "--top-k", "1"])
    assert "Зелёный чай заваривают" in done.stdout


def test_a_question_is_answered_with_the_passage_that_it_rests_on(
    project: Path, gateway: Running, fake_engine: FakeEngine
) -> None:
    completion = gateway.ask(QUESTION, model="spravka")
    chunk = completion.model_extra["llmops"]["chunks"][0]
    assert chunk["cited"]
    assert chunk["document_id"].endswith(TEA)
    assert cited_text(project, chunk) == DOCUMENTS[TEA].strip()
    prompt = fake_engine.received[-1]["messages"][-1]["content"]
    assert QUESTION in prompt
    assert "нагретой до восьмидесяти градусов" in prompt


def test_the_log_row_can_be_read(project: Path, gateway: Running) -> None:
    row = gateway.logged(gateway.ask(QUESTION, model="spravka").id)
    written = json.dumps(row, ensure_ascii=False)
    assert QUESTION in written
    assert TEA in written


def test_ask_prints_where_the_answer_comes_from(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_PORT", gateway.url.rpartition(":")[2])
    done = CliRunner().invoke(main, ["ask", QUESTION])
    assert done.exit_code == 0, done.output
    assert f"{TEA}, characters 0–" in done.stdout
