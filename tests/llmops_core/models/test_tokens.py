from pathlib import Path

import pytest

from llmops_core.errors import ModelError
from llmops_core.models.tokens import EstimatedTokens, TokenCounter, load_tokens, valid_unicode

TEXTS = ["", "a", "Operator overloading: __add__", "naïve 日本語 😀 text\n\n  x", "lone \ud800 surrogate", "\ud83d"]


@pytest.fixture(scope="module", params=["minilm", "smollm2-135m-instruct"])
def tokens(models: Path, request: pytest.FixtureRequest) -> TokenCounter:
    return load_tokens(models / request.param)


@pytest.mark.models
@pytest.mark.parametrize("text", TEXTS)
def test_there_is_a_span_for_each_token_and_it_lies_in_the_text(tokens: TokenCounter, text: str) -> None:
    spans = tokens.offsets(text)
    assert tokens.count(text) == len(spans)
    assert all(0 <= start <= end <= len(text) for start, end in spans)


@pytest.mark.models
def test_spans_are_characters_and_cover_the_words(models: Path) -> None:
    text = "Über naïve operators"
    words = [text[start:end] for start, end in load_tokens(models / "minilm").offsets(text)]
    assert words == ["Über", "naïve", "operators"]


@pytest.mark.models
@pytest.mark.parametrize("name", ["minilm", "bge-small", "ms-marco-minilm"])
def test_nothing_is_cut_or_padded_whatever_the_files_say(models: Path, name: str) -> None:
    tokens = load_tokens(models / name)
    assert tokens.count("word " * 2000) == 2000
    assert tokens.count("word") == 1


@pytest.mark.models
def test_special_tokens_are_not_counted_and_what_looks_like_one_is_text(models: Path) -> None:
    counter = load_tokens(models / "smollm2-135m-instruct")
    assert counter.count("user") == 1
    assert counter.count("<|im_start|>user<|im_end|>") > 10


@pytest.mark.parametrize("text", TEXTS)
def test_estimated_tokens_have_a_span_each_and_cover_the_text(text: str) -> None:
    tokens = EstimatedTokens()
    spans = tokens.offsets(text)
    assert tokens.count(text) == len(spans)
    assert {n for start, end in spans for n in range(start, end)} == set(range(len(text)))


@pytest.mark.models
def test_the_estimate_is_rather_too_high_for_english(models: Path) -> None:
    text = "The with statement wraps the execution of a block with methods defined by a context manager."
    real = load_tokens(models / "smollm2-135m-instruct").count(text)
    assert real <= EstimatedTokens().count(text) <= 3 * real


def test_valid_unicode_keeps_length_and_what_is_valid() -> None:
    assert valid_unicode("a\ud800b😀") == "a\ufffdb😀"


def test_a_folder_without_tokenizer_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json\. Make one"):
        load_tokens(tmp_path)


def test_a_broken_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is no tokenizer"):
        load_tokens(tmp_path)
