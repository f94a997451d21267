"""Projects to run `llmops` in, as a person does: from their folder, in a home of their own."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmops_core.settings import Settings

ASSISTANT_YAML = """\
name: notes
sources: [{type: folder, path: docs}]
retrieval: {mode: full_text}
generator: {engine: openai, model: some-model, base_url: "http://127.0.0.1:9/v1"}
"""
"""Full text and a server where nothing listens: neither commands nor a gateway have to load a model."""

DEFINITIONS = Path(__file__).parents[2] / "llmops_cli" / "new_assistant" / "definitions.py"
PROMPT = "{% block system %}Be brief.{% endblock %}{% block user %}{{ question }}{% endblock %}"


@pytest.fixture
def project(home_with_models: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the assistant `notes`, in which nothing was built yet; the working folder is its own."""
    root = tmp_path / "project"
    _write_project(root)
    _enter(root, monkeypatch)
    return root


@pytest.fixture(scope="module")
def built_project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A project and its home, built once for a file."""
    from llmops_cli.main import main

    base = tmp_path_factory.mktemp("built")
    root, home = base / "project", base / "home"
    _write_project(root)
    home.mkdir()
    (home / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        _enter(root, patch)
        done = CliRunner().invoke(main, ["build", "--json"])
    assert json.loads(done.stdout)["documents"] == 1, done.output
    return root, home


@pytest.fixture
def built(built_project: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that is built, with its files as they were when it was."""
    root, home = built_project
    _write_project(root)
    monkeypatch.setenv("LLMOPS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    _enter(root, monkeypatch)
    return root


def _write_project(root: Path) -> None:
    files = {
        "workspace.yaml": "load_from:\n"
        "  - python_file: {relative_path: assistants/notes/definitions.py, location_name: notes}\n",
        "assistants/notes/assistant.yaml": ASSISTANT_YAML,
        "assistants/notes/definitions.py": DEFINITIONS.read_text(encoding="utf-8"),
        "assistants/notes/prompts/answer.jinja": PROMPT,
        "assistants/notes/docs/coffee.md": "# Coffee\n\nThe coffee machine stands on the second floor.\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def _enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(root)
    for name in ("LLMOPS_ASSISTANT", "LLMOPS_PORT"):
        patch.delenv(name, raising=False)
