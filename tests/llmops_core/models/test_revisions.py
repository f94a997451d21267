import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmops_core.errors import ModelError
from llmops_core.models.revisions import embedder_revision, generator_revision, reranker_revision
from llmops_core.settings import Settings, load_settings

COMMIT = "0123456789" * 4


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "My Model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "config.json").write_text("{}")
    (made / "1_Pooling" / "config.json").write_text("{}")
    return made


def test_revisions_never_change_by_accident(settings: Settings) -> None:
    """Golden: a change here makes every index and release of this model a new one. Raise `_ENCODING` to mean it."""
    assert {
        "minilm": embedder_revision(settings, "minilm"),
        "minilm with prefixes": embedder_revision(settings, "minilm", "q: ", "d: "),
        "bge-small": embedder_revision(settings, "bge-small"),
        "multilingual-e5-small": embedder_revision(settings, "multilingual-e5-small"),
        "ms-marco-minilm": reranker_revision(settings, "ms-marco-minilm"),
        "smollm2": generator_revision(settings, "smollm2-135m-instruct"),
        "hub embedder": embedder_revision(
            settings, f"hf:intfloat/multilingual-e5-small@{COMMIT}", "query: ", "passage: "
        ),
        "hub generator": generator_revision(settings, f"hf:HuggingFaceTB/SmolLM2-360M-Instruct@{COMMIT}"),
    } == {
        "minilm": "minilm-d2ba546d9d01",
        "minilm with prefixes": "minilm-6abd2c850037",
        "bge-small": "bge-small-f08a810b3178",
        "multilingual-e5-small": "multilingual-e5-small-cc913bb350b6",
        "ms-marco-minilm": "ms-marco-minilm-2a644f124313",
        "smollm2": "smollm2-135m-instruct-4f630239975f",
        "hub embedder": "multilingual-e5-small-f5bd9040edba",
        "hub generator": "smollm2-360m-instruct-2c852e25fcfd",
    }


def test_revisions_of_built_in_and_hub_models_touch_no_file(settings: Settings) -> None:
    embedder_revision(settings, "minilm")
    embedder_revision(settings, f"hf:intfloat/e5@{COMMIT}")
    assert not settings.home.exists()


def test_prefixes_and_commits_change_an_embedder_revision(settings: Settings) -> None:
    revisions = {
        embedder_revision(settings, "minilm"),
        embedder_revision(settings, "minilm", query_prefix="a"),
        embedder_revision(settings, "minilm", document_prefix="a"),
        embedder_revision(settings, "bge-small"),
        embedder_revision(settings, f"hf:intfloat/e5@{COMMIT}"),
        embedder_revision(settings, f"hf:intfloat/e5@{COMMIT[::-1]}"),
    }
    assert len(revisions) == 6


def test_writing_out_the_built_in_prefix_changes_nothing(settings: Settings) -> None:
    prefix = "Represent this sentence for searching relevant passages: "
    assert embedder_revision(settings, "bge-small", prefix) == embedder_revision(settings, "bge-small")


def test_the_device_is_no_part_of_a_revision(tmp_path: Path) -> None:
    devices = [load_settings(home=tmp_path, device=device) for device in ("auto", "cpu", "cuda")]
    assert len({embedder_revision(settings, "minilm") for settings in devices}) == 1


def test_a_folders_revision_follows_its_content_and_not_its_place(settings: Settings, folder: Path) -> None:
    before = embedder_revision(settings, f"path:{folder}")
    assert before.startswith("my-model-")
    moved = folder.parent / "elsewhere" / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    assert embedder_revision(settings, f"path:{moved}") == before
    (moved / "README.md").write_text("says nothing about vectors")
    (moved / ".cache").write_text("neither")
    assert embedder_revision(settings, f"path:{moved}") == before
    (moved / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert embedder_revision(settings, f"path:{moved}") != before


def test_a_folders_files_are_hashed_once_for_each_size_and_time(settings: Settings, folder: Path) -> None:
    revision = generator_revision(settings, f"path:{folder}")
    weights = folder / "model.safetensors"
    cache = settings.models / "revisions.json"
    entries = json.loads(cache.read_text())
    entries[str(weights)][2] = "remembered"
    cache.write_text(json.dumps(entries))
    assert generator_revision(settings, f"path:{folder}") != revision
    os.utime(weights, ns=(0, 0))
    assert generator_revision(settings, f"path:{folder}") == revision


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', "\x00"])
def test_a_broken_cache_costs_nothing_but_time(settings: Settings, folder: Path, content: str) -> None:
    revision = reranker_revision(settings, f"path:{folder}")
    (settings.models / "revisions.json").write_text(content)
    assert reranker_revision(settings, f"path:{folder}") == revision


def test_a_folder_that_is_not_there_is_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not there or holds no file"):
        embedder_revision(settings, f"path:{tmp_path / 'nothing'}")


def test_a_revision_loads_no_heavy_library() -> None:
    """Dagster asks for revisions whenever it loads the definitions."""
    code = (
        "import sys; from llmops_core.models import revisions, store, tokens;"
        " from llmops_core.settings import load_settings;"
        " revisions.embedder_revision(load_settings(), 'minilm');"
        " print([name for name in ('torch', 'transformers', 'onnxruntime', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
