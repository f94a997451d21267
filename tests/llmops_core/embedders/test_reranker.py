import shutil
from pathlib import Path

import numpy as np
import pytest

from llmops_core.embedders.reranker import Reranker, load_reranker
from llmops_core.errors import ModelError
from llmops_core.models.revisions import reranker_revision
from llmops_core.settings import Settings, load_settings

pytestmark = pytest.mark.models

QUESTION = "How do I make my class support the plus operator?"
TEXTS = [
    "Bees visit flowers to collect nectar and pollen.",
    "Define __add__() in your class to implement the + operator for its instances.",
    "The plus sign is an old symbol of mathematics.",
    "",
]


@pytest.fixture(scope="module")
def settings(models: Path) -> Settings:
    return load_settings(home=models.parent)


@pytest.fixture(scope="module")
def reranker(settings: Settings) -> Reranker:
    return load_reranker(settings, "ms-marco-minilm")


def test_what_answers_comes_first_and_what_is_about_something_else_after_it(reranker: Reranker) -> None:
    scores = reranker.score(QUESTION, TEXTS)
    assert scores.dtype == np.float32
    assert scores.shape == (4,)
    answer, plus, bees = scores[1], scores[2], scores[0]
    assert answer > plus > bees


def test_the_score_of_a_pair_does_not_depend_on_the_other_pairs(reranker: Reranker) -> None:
    together = reranker.score(QUESTION, [*TEXTS, "long text " * 200])
    alone = [reranker.score(QUESTION, [text])[0] for text in TEXTS]
    assert np.array_equal(together[:4], np.array(alone, dtype=np.float32))


def test_no_text_gives_no_score(reranker: Reranker) -> None:
    assert reranker.score(QUESTION, []).shape == (0,)


def test_512_tokens_are_read_though_the_tokenizer_file_says_128(reranker: Reranker) -> None:
    filler = "The weather was fine that day and nothing happened. "
    plain, at_200, at_600 = (filler * n + TEXTS[1] for n in (0, 20, 60))
    assert reranker.score(QUESTION, [at_200])[0] != reranker.score(QUESTION, [filler * 20])[0]
    assert reranker.score(QUESTION, [at_600])[0] == reranker.score(QUESTION, [filler * 60])[0]
    assert reranker.score(QUESTION, [plain])[0] > reranker.score(QUESTION, [at_600])[0]


def test_a_very_long_pair_is_cut_and_scored(reranker: Reranker) -> None:
    assert np.isfinite(reranker.score("why " * 2000, ["because " * 2000])).all()


def test_a_folder_of_ones_own_is_a_reranker_too(settings: Settings, models: Path, reranker: Reranker) -> None:
    name = f"path:{models / 'ms-marco-minilm'}"
    own = load_reranker(settings, name)
    assert own.revision == reranker_revision(settings, name)
    assert np.array_equal(own.score(QUESTION, TEXTS), reranker.score(QUESTION, TEXTS))


def test_what_is_no_reranker_is_an_error(settings: Settings, models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs exactly one"):
        load_reranker(settings, f"path:{models / 'bge-small'}")
    with pytest.raises(ModelError, match=r"has no model\.onnx"):
        load_reranker(settings, f"path:{models / 'minilm'}")
    with pytest.raises(ModelError, match="use a built-in name, or a folder with an ONNX export"):
        load_reranker(settings, "hf:cross-encoder/x@" + "0" * 40)
    broken = Path(shutil.copytree(models / "ms-marco-minilm", tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        load_reranker(settings, f"path:{broken}")
