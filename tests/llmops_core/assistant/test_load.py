"""assistant.yaml: what is allowed, and how clearly it says what is not."""

from pathlib import Path

import pytest

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.errors import ConfigError

MINIMAL = "name: helper\nsources: [{type: python_topics}]\n"


def load(folder: Path, text: str) -> Assistant:
    (folder / "assistant.yaml").write_text(text, encoding="utf-8")
    return load_assistant(folder)


def test_name_and_sources_are_enough(tmp_path: Path) -> None:
    assistant = load(tmp_path, MINIMAL)
    assert (assistant.chunking.size, assistant.retrieval.mode, assistant.embedder.model) == (128, "hybrid", "minilm")


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    text = """
name: python_help
sources:
  - {type: python_topics}
  - {type: folder, path: docs/, glob: "**/*.md"}
  - {type: jsonl, path: corpus.jsonl, id: doc_id, title: title, text: text}
chunking: {size: 128, overlap: 32}
embedder: {model: minilm}
retrieval: {mode: hybrid, top_k: 5, reranker: {model: ms-marco-minilm, pool: 10}}
generator: {engine: local, model: smollm2-135m-instruct, max_tokens: 128, temperature: 0}
prompt: {template: prompts/answer.jinja, budget: [chunks, history, features]}
evaluation:
  cases: cases.jsonl
  gate: {min_cases: 100, alpha: 0.05, rules: [{metric: recall_at_5, mode: not_worse, margin: 0.02}]}
release: {approval: required, index_only: automatic, canary: {share: 0.1, min_requests: 200, max_hours: 24}}
triggers: {documents: {every_minutes: 10}}
retention: {log_days: 30, index_days: 30}
"""
    assistant = load(tmp_path, text)
    assert assistant.evaluation.gate.rules[0].margin == 0.02
    assert assistant.path("docs/") == (tmp_path / "docs").resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", ["not valid YAML", "line 1"]),
        ("- 1", ["expected keys and values"]),
        (MINIMAL + "retrieval: {mod: dense}", ["retrieval.mod: unknown key", "mode, top_k"]),
        (MINIMAL + "foo: 1", ["foo: unknown key", "name, sources"]),
        (MINIMAL + "folder: /tmp", ["folder: unknown key"]),
        (MINIMAL + "retrieval: {mode: sparse}", ["retrieval.mode", "'dense', 'full_text' or 'hybrid'", "'sparse'"]),
        (MINIMAL + "chunking: {size: many}", ["chunking.size", "valid integer", "'many'"]),
        (MINIMAL + "chunking: {size: 32, overlap: 31}", ["overlap (31) must be at most half of size (32)"]),
        (MINIMAL + "generator: {engine: openai}", ["engine openai needs base_url"]),
        (MINIMAL + "prompt: {budget: [chunks, chunks]}", ["each of chunks, history, features at most once"]),
        ("name: helper", ["sources: is required"]),
        ("name: My Bot\nsources: [{type: python_topics}]", ["lower-case letters"]),
        ("name: a\nsources: [{type: pdf}]", ["sources.0", "'python_topics', 'folder', 'jsonl'"]),
        ("name: a\nsources: [{type: folder, path: x, globb: y}]", ["sources.0.globb: unknown key", "type, path, glob"]),
        ("name: a\nsources: [{type: git, path: x}]", ["sources.0.url: is required"]),
        (MINIMAL + "git: {url: x}", ["  git: unknown key", "name, sources"]),
        (MINIMAL + "chunking: {size: 64}\nchunking: {overlap: 8}", ["key chunking is there twice", "line 4"]),
        (MINIMAL + "chunking: {size: 64, size: 32}", ["key size is there twice", "line 3"]),
        (MINIMAL + "evaluation: {gate: {rules: [{metrik: f1}]}}", ["evaluation.gate.rules.0.metrik", "metric, mode"]),
        (MINIMAL + "retrieval: {reranker: {modell: x}}", ["retrieval.reranker.modell: unknown key", "model, pool\n"]),
        (
            MINIMAL + "embedder: {beside: [{model: minilm, beside: []}]}",
            ["embedder.beside.0.beside: unknown key. Allowed here: model, query_prefix, document_prefix\n"],
        ),
    ],
)
def test_an_error_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "assistant.yaml") in str(caught.value)
    for part in said:
        assert part in f"{caught.value}\n"


def test_what_is_secret_in_an_address_is_not_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.0: names a branch to follow or a revision") as caught:
        load(tmp_path, "name: a\nsources: [{type: git, url: 'https://me:hunter2@host/x.git', branch: b, revision: r}]")
    assert "hunter2" not in str(caught.value)


def test_keys_of_a_merged_section_may_be_set_anew(tmp_path: Path) -> None:
    text = "triggers: &t {documents: {every_minutes: 5}}\n" + MINIMAL
    assert (
        load(tmp_path, text.replace("&t {", "{<<: {documents: {every_minutes: 9}}, ")).triggers.documents.every_minutes
        == 5
    )


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="llmops init NAME --docs DIR"):
        load_assistant(tmp_path)


def test_a_model_in_a_folder_is_found_from_the_assistant_and_not_from_where_one_stands(tmp_path: Path) -> None:
    assistant = load(
        tmp_path,
        MINIMAL + "embedder: {model: 'path:models/mine', beside: ['path:/opt/theirs', bge-small]}\n"
        "retrieval: {reranker: {model: 'path:../reranker'}}\n",
    )
    assert assistant.embedder.model == f"path:{tmp_path}/models/mine"
    assert [further.model for further in assistant.embedder.beside] == ["path:/opt/theirs", "bge-small"]
    assert assistant.retrieval.reranker
    assert assistant.retrieval.reranker.model == f"path:{tmp_path.parent}/reranker"


def test_an_embedder_beside_has_prefixes_of_its_own(tmp_path: Path) -> None:
    beside = "[bge-small, {model: minilm, document_prefix: 'd: '}]"
    own = load(tmp_path, MINIMAL + f"embedder: {{model: minilm, query_prefix: 'q: ', beside: {beside}}}\n").embedder
    prefixes = [(e.model, e.query_prefix, e.document_prefix) for e in (own, *own.beside)]
    assert prefixes == [("minilm", "q: ", ""), ("bge-small", "", ""), ("minilm", "", "d: ")]
