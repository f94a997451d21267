"""LoRA adapters in the real engine: loaded, used by name, unloaded, and refused when they do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.adapters import make_adapter

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def adapters(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(generator, root / name, rank, rank) for name, rank in (("first", 2), ("second", 4))}


def _answer(http: httpx.Client, model: str) -> str:
    message = {"role": "user", "content": "Write about the sea."}
    body = {"model": model, "messages": [message], "temperature": 0, "max_tokens": 8}
    reply = http.post("/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def _load(http: httpx.Client, name: str, folder: Path) -> httpx.Response:
    return http.post("/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})


def _unload(http: httpx.Client, name: str) -> httpx.Response:
    return http.post("/unload_lora_adapter", json={"lora_name": name})


def _names(http: httpx.Client) -> dict[str, str | None]:
    return {m["id"]: m["parent"] for m in http.get("/models").json()["data"]}


@pytest.fixture(autouse=True)
def _only_the_base_is_loaded(http: httpx.Client) -> None:
    """Adapters that a failed test left behind are not the next one's."""
    for name, parent in _names(http).items():
        if parent is not None:
            assert _unload(http, name).status_code == 200


def test_adapters_answer_by_their_names_and_leave_the_base_alone(http: httpx.Client, adapters: dict[str, Path]) -> None:
    base = _answer(http, MODEL)
    for name, folder in adapters.items():
        assert _load(http, name, folder).status_code == 200
    assert _names(http) == {MODEL: None, "first": MODEL, "second": MODEL}
    answers = {name: _answer(http, name) for name in (MODEL, *adapters)}
    assert answers[MODEL] == base
    assert len(set(answers.values())) == 3

    assert _unload(http, "first").status_code == 200
    assert _names(http) == {MODEL: None, "second": MODEL}
    assert _answer(http, "second") == answers["second"]
    message = {"role": "user", "content": "a"}
    assert http.post("/chat/completions", json={"model": "first", "messages": [message]}).status_code == 404

    assert _unload(http, "second").status_code == 200
    assert _names(http) == {MODEL: None}
    assert _answer(http, MODEL) == base

    assert _load(http, "first", adapters["first"]).status_code == 200
    assert _answer(http, "first") == answers["first"]


def test_a_name_is_taken_once(http: httpx.Client, adapters: dict[str, Path]) -> None:
    assert _load(http, "first", adapters["first"]).status_code == 200
    for name in ("first", MODEL):
        reply = _load(http, name, adapters["second"])
        assert reply.status_code == 400
        assert "has already been loaded" in reply.json()["error"]["message"]


def test_what_is_not_there_is_not_found(http: httpx.Client, tmp_path: Path) -> None:
    assert _load(http, "ghost", tmp_path / "nowhere").status_code == 404
    assert _unload(http, "ghost").status_code == 404


def _other_layers(folder: Path) -> None:
    """Weights of layers that the model has not."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name.replace("layers.", "blocks."): weight for name, weight in load_file(file).items()}, file)


def _change_config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _other_rank(folder: Path) -> None:
    _change_config(folder, r=16)


def _other_modules(folder: Path) -> None:
    _change_config(folder, target_modules=["no_such_module"])


def _no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def _cut_weights(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize(
    "damage", [_other_layers, _other_rank, _other_modules, _no_weights, _broken_config, _cut_weights]
)
def test_an_adapter_that_does_not_fit_changes_nothing(
    http: httpx.Client, adapters: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], beside: bool
) -> None:
    base = _answer(http, MODEL)
    if beside:
        assert _load(http, "second", adapters["second"]).status_code == 200
    damaged = Path(shutil.copytree(adapters["first"], tmp_path / "damaged"))
    damage(damaged)
    reply = _load(http, "first", damaged)
    assert reply.status_code == 400, reply.text
    assert "does not fit" in reply.json()["error"]["message"]
    assert _answer(http, MODEL) == base
    assert "first" not in _names(http)
    # The name is free, and what fits is loaded as if nothing had been.
    assert _load(http, "first", adapters["first"]).status_code == 200
    assert _answer(http, "first") != base


@pytest.mark.parametrize("body", [{}, {"lora_name": ""}, {"lora_name": "a.b", "lora_path": "x"}, {"lora_name": 7}])
def test_a_malformed_adapter_request_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    reply = http.post("/load_lora_adapter", json=body)
    assert reply.status_code == 400
    assert "lora_name" in reply.json()["error"]["message"]
