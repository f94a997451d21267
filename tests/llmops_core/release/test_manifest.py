"""The manifest: a file format that other processes rely on."""

import json
from pathlib import Path

import pytest

from llmops_core.errors import PermanentError
from llmops_core.release.manifest import (
    EmbedderPin,
    GeneratorParams,
    GeneratorPin,
    IndexPin,
    Manifest,
    PromptPin,
    RetrievalPin,
    manifest_of_bundle,
)

GOLDEN = Path(__file__).parents[2] / "snapshots" / "manifest.json"


def manifest(index: str = "i1", prompt: int = 1) -> Manifest:
    return Manifest(
        assistant="helper",
        prompt=PromptPin(name="answer", version=prompt, hash="abc", budget=["chunks", "history"]),
        generator=GeneratorPin(
            engine="local",
            model="smollm2-135m-instruct",
            revision="smollm2-1",
            context_window=8192,
            params=GeneratorParams(max_tokens=128, temperature=0, top_p=1),
        ),
        embedder=EmbedderPin(model="minilm", revision="minilm-1"),
        retrieval=RetrievalPin(mode="hybrid", top_k=5, query="last_turn"),
        index=IndexPin(version=index, snapshots={"corpus_chunks": 2**62 + 1}),
    )


def test_the_format_is_the_recorded_one() -> None:
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert manifest().to_dict() == recorded["manifest"]
    assert manifest().release_id == recorded["release_id"]


def test_a_manifest_reads_back_as_itself() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()


def test_sections_that_are_not_used_are_absent() -> None:
    assert "features" not in manifest().to_dict()
    assert "adapter" not in manifest().to_dict()["generator"]


def test_every_part_is_in_the_id() -> None:
    ids = {manifest().release_id, manifest("i2").release_id, manifest(prompt=2).release_id}
    assert len(ids) == 3


def test_fresh_documents_are_told_from_other_changes() -> None:
    assert manifest("i2").differs_in_index_alone(manifest("i1"))
    assert not manifest("i2", prompt=2).differs_in_index_alone(manifest("i1"))
    assert not manifest().differs_in_index_alone(manifest())


def test_a_manifest_of_a_newer_version_is_refused() -> None:
    newer = json.dumps({**manifest().to_dict(), "quantum": {"entangled": True}})
    with pytest.raises(PermanentError, match="upgrade this one"):
        Manifest.from_json(newer)


def test_a_damaged_local_copy_is_noticed() -> None:
    value = {"release_id": manifest().release_id, "manifest": manifest("i2").to_dict(), "prompt_text": ""}
    with pytest.raises(PermanentError, match="damaged"):
        manifest_of_bundle(value)
