import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llmops_core.embedders.embedder import Embedder, l2_normalised
from llmops_core.embedders.load import load_embedder
from llmops_core.errors import ModelError
from llmops_core.models.revisions import embedder_revision
from llmops_core.settings import Settings, load_settings

pytestmark = pytest.mark.models

QUESTION = "How do I make my class support the plus operator?"
TEXTS = [
    "Define __add__() to implement addition for instances of a type.",
    "Bees visit flowers to collect nectar and pollen.",
    "x",
    "",
    "The import statement combines two operations; it searches for the named module. " * 12,
]


@pytest.fixture(scope="module")
def settings(models: Path) -> Settings:
    return load_settings(home=models.parent, device="cpu")


@pytest.fixture(scope="module", params=["minilm", "bge-small", "multilingual-e5-small"])
def embedder(settings: Settings, request: pytest.FixtureRequest) -> Embedder:
    return load_embedder(settings, request.param)


def test_vectors_are_float32_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension) == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert embedder.embed_query(QUESTION).shape == (384,)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_no_text_gives_no_vector(embedder: Embedder) -> None:
    vectors = embedder.embed_documents([])
    assert vectors.shape == (0, 384)
    assert vectors.dtype == np.float32


def test_the_same_question_gives_the_same_bits(embedder: Embedder) -> None:
    first = embedder.embed_query(QUESTION)
    embedder.embed_documents(TEXTS)
    assert np.array_equal(first, embedder.embed_query(QUESTION))


def test_what_answers_a_question_is_nearer_than_what_does_not(embedder: Embedder) -> None:
    answer, bees = embedder.embed_documents(TEXTS[:2]) @ embedder.embed_query(QUESTION)
    # The cosines of e5 lie close together, whatever the texts.
    assert answer > bees + {"minilm": 0.2, "bge-small": 0.2, "multilingual-e5-small": 0.05}[embedder.model]


def test_vectors_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    forward, backward = embedder.embed_documents(TEXTS), embedder.embed_documents(TEXTS[::-1])
    assert ((forward * backward[::-1]).sum(axis=1) > 0.999).all()


def test_text_past_the_longest_input_is_cut_off(embedder: Embedder) -> None:
    assert embedder.max_tokens == {"minilm": 256, "bge-small": 512, "multilingual-e5-small": 512}[embedder.model]
    within = " ".join(["word"] * (embedder.max_tokens - 2))
    whole, cut = embedder.embed_documents([within, within + " bee" * 50])
    assert whole @ cut > 0.9999
    shorter = embedder.embed_documents([" ".join(["word"] * (embedder.max_tokens // 2)) + " bee" * 50])[0]
    assert whole @ shorter < 0.99


def test_a_broken_escape_is_no_error(embedder: Embedder) -> None:
    assert np.array_equal(embedder.embed_query("a \ud800 b"), embedder.embed_query("a \ufffd b"))


def test_threads_may_share_an_embedder(embedder: Embedder) -> None:
    alone = [embedder.embed_query(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(embedder.embed_query, TEXTS * 4))
    assert all(np.array_equal(vector, alone[n % len(TEXTS)]) for n, vector in enumerate(together))


def test_the_texts_beside_it_change_a_bfloat16_vector_by_next_to_nothing(settings: Settings) -> None:
    embedder = load_embedder(settings, "minilm")
    batched = embedder.embed_documents(TEXTS * 4)
    alone = np.stack([embedder.embed_documents([text])[0] for text in TEXTS * 4])
    assert (batched * alone).sum(axis=1).min() > 0.9995


def test_the_texts_beside_it_change_no_bit_of_an_int8_vector(settings: Settings) -> None:
    embedder = load_embedder(settings, "bge-small")
    alone = np.stack([embedder.embed_documents([text])[0] for text in TEXTS])
    assert np.array_equal(embedder.embed_documents(TEXTS), alone)


def test_bge_puts_its_own_prefix_before_a_question_and_none_before_a_document(settings: Settings) -> None:
    embedder = load_embedder(settings, "bge-small")
    prefix = "Represent this sentence for searching relevant passages: "
    as_document = embedder.embed_documents([QUESTION, prefix + QUESTION])
    question = embedder.embed_query(QUESTION)
    assert np.array_equal(question, as_document[1])
    assert not np.array_equal(question, as_document[0])


def test_e5_puts_its_own_prefixes_before_questions_and_documents(settings: Settings) -> None:
    embedder = load_embedder(settings, "multilingual-e5-small")
    plain = load_embedder(settings, f"path:{settings.models / 'multilingual-e5-small'}")
    question, document = plain.embed_documents(["query: text", "passage: text"])
    assert embedder.embed_query("text") @ question > 0.9999
    assert embedder.embed_documents(["text"])[0] @ document > 0.9999
    assert question @ document < 0.999


def test_e5_finds_the_answer_in_another_language(settings: Settings) -> None:
    embedder = load_embedder(settings, "multilingual-e5-small")
    right, wrong = embedder.embed_documents(
        ["Определите метод __add__, чтобы складывать экземпляры.", "Пчёлы собирают нектар."]
    )
    assert embedder.embed_query(QUESTION) @ right > embedder.embed_query(QUESTION) @ wrong + 0.05


@pytest.mark.parametrize("name", ["minilm", "bge-small"])
def test_prefixes_go_before_the_text_and_into_the_revision(settings: Settings, name: str) -> None:
    prefixed = load_embedder(settings, name, "query: ", "passage: ")
    assert prefixed.revision == embedder_revision(settings, name, "query: ", "passage: ")
    assert prefixed.revision != embedder_revision(settings, name)
    passage = prefixed.embed_documents(["text"])[0]
    assert passage @ load_embedder(settings, name).embed_documents(["passage: text"])[0] > 0.9999
    question, other = prefixed.embed_query("text"), prefixed.embed_documents(["text"])[0]
    assert not np.array_equal(question, other)


def test_a_folder_of_ones_own_runs_as_sentence_transformer(settings: Settings, models: Path) -> None:
    name = f"path:{models / 'minilm'}"
    own, builtin = load_embedder(settings, name), load_embedder(settings, "minilm")
    assert (own.model, own.dimension, own.max_tokens) == (name, 384, 256)
    assert np.array_equal(own.embed_query(QUESTION), builtin.embed_query(QUESTION))
    assert own.revision == embedder_revision(settings, name)


def test_files_that_are_no_model_are_an_error(settings: Settings, models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "minilm", tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="broken cannot be loaded as an embedder"):
        load_embedder(settings, f"path:{folder}")


def test_a_model_of_another_role_is_an_error(settings: Settings) -> None:
    with pytest.raises(ModelError, match="of role reranker, not embedder"):
        load_embedder(settings, "ms-marco-minilm")


def test_loading_prints_nothing_and_needs_no_network(models: Path) -> None:
    code = (
        "from pathlib import Path; from llmops_core.embedders.load import load_embedder;"
        " from llmops_core.embedders.reranker import load_reranker; from llmops_core.settings import load_settings;"
        f" settings = load_settings(home=Path({str(models.parent)!r}), device='cpu');"
        " [load_embedder(settings, name).embed_documents(['a', 'b']) for name in ('minilm', 'bge-small')];"
        " load_reranker(settings, 'ms-marco-minilm').score('a', ['b'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_normalising_keeps_zero_rows() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [1e-9, 0.0]], dtype=np.float32)
    assert np.allclose(l2_normalised(rows), [[0.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
