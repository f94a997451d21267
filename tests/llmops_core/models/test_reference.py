from pathlib import Path

import pytest

from llmops_core.errors import ModelError
from llmops_core.models.builtin import BUILTIN, BuiltinModel, Role
from llmops_core.models.reference import FolderModel, HubModel, parse_reference, slug

COMMIT = "0123456789" * 4


def test_a_built_in_name_is_found() -> None:
    model = parse_reference("minilm", "embedder")
    assert isinstance(model, BuiltinModel)
    assert model.dimension == 384


def test_a_hub_model_is_named_with_its_commit() -> None:
    assert parse_reference(f"hf:intfloat/multilingual-e5-small@{COMMIT}", "embedder") == HubModel(
        "intfloat/multilingual-e5-small", COMMIT
    )


def test_a_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_reference("path:mine/model", "generator") == FolderModel(tmp_path / "mine" / "model")


@pytest.mark.parametrize(
    ("reference", "kind", "said"),
    [
        (
            "minilmm",
            "embedder",
            "Unknown embedder 'minilmm'. Allowed: minilm, bge-small, multilingual-e5-small (built in), hf:<repo>@<commit>",
        ),
        ("", "generator", "Allowed: smollm2-135m-instruct (built in)"),
        ("minilm", "generator", "'minilm' is a model of role embedder, not generator. Built in for generator: smollm2"),
        ("hf:intfloat/e5", "embedder", "names no revision: a release must pin a model"),
        ("hf:intfloat/e5@", "embedder", "names no revision"),
        ("hf:intfloat/e5@main", "embedder", "'main', which can move"),
        ("hf:@" + COMMIT, "embedder", "names no repository"),
        ("hf:a/../b@" + COMMIT, "embedder", "names no repository"),
        ("path:", "embedder", "names no folder"),
        ("https://example.com/model", "embedder", "Unknown embedder"),
    ],
)
def test_a_wrong_name_says_what_is_allowed(reference: str, kind: Role, said: str) -> None:
    with pytest.raises(ModelError) as error:
        parse_reference(reference, kind)
    assert said in str(error.value)


def test_without_a_role_every_built_in_name_is_allowed() -> None:
    assert [parse_reference(name) for name in BUILTIN] == list(BUILTIN.values())
    with pytest.raises(
        ModelError, match="minilm, bge-small, multilingual-e5-small, ms-marco-minilm, smollm2-135m-instruct"
    ):
        parse_reference("nothing")


def test_the_table_is_consistent() -> None:
    for name, model in BUILTIN.items():
        names = [file.name for file in model.files]
        assert name == model.name == slug(name)
        assert model.weights in names
        assert len(set(names)) == len(names)
        assert all(len(file.sha256) == 64 for file in model.files)


@pytest.mark.parametrize(("name", "made"), [("Ünï CODE__x", "n-code-x"), ("...", "model"), ("a" * 60, "a" * 48)])
def test_a_slug_is_safe_in_keys_and_paths(name: str, made: str) -> None:
    assert slug(name) == made
