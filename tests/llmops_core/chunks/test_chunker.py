import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from llmops_core.chunks.chunk import Chunk
from llmops_core.chunks.chunker import chunk_document
from llmops_core.chunks.units import Tokens
from llmops_core.corpus.document import Document, MediaType
from llmops_core.models.tokens import EstimatedTokens


class Words:
    """Every word is a token, and every other visible character."""

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


class Syllables(Words):
    """At most three letters a token, and blanks count: what a word costs depends on where it is cut."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\s?\w{1,3}|\s+|[^\w\s]", text)]


class Unknowing(Words):
    """Like BERT's: a long word is one unknown token, and what it does not know it does not see."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"[\w😀]+|[!-/:-@]", text)]


TOKENIZERS: list[Tokens] = [Words(), Syllables(), Unknowing(), EstimatedTokens()]


def document(text: str, title: str = "Title", media_type: MediaType = "text/markdown") -> Document:
    return Document("d", title, text, "d.md", media_type, "folder:docs")


def cut(text: str, size: int = 16, overlap: int = 0, title: str = "Title", tokens: Tokens | None = None) -> list[Chunk]:
    return chunk_document(document(text, title), tokens or Words(), size, overlap)


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


def assert_sound(source: Document, tokens: Tokens, size: int, overlap: int) -> list[Chunk]:
    """What holds of the chunks of any document."""
    chunks = chunk_document(source, tokens, size, overlap)
    covered = bytearray(len(source.text))
    for chunk in chunks:
        assert source.text[chunk.char_start : chunk.char_end] == chunk.text == chunk.text.strip() != ""
        assert chunk.tokens == max(1, tokens.count(chunk.embedded_text)) <= size
        assert (chunk.document_id, chunk.document_hash) == (source.document_id, source.content_hash)
        covered[chunk.char_start : chunk.char_end] = b"\1" * len(chunk.text)
    missing = [
        n
        for n, (seen, character) in enumerate(zip(covered, source.text, strict=True))
        if not seen and not character.isspace()
    ]
    assert not missing, f"lost from character {missing[0]}"
    assert all(a.char_start < b.char_start and a.char_end < b.char_end for a, b in pairwise(chunks))
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    assert chunk_document(source, tokens, size, overlap) == chunks
    return chunks


def numbered(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_a_short_document_is_one_chunk() -> None:
    (chunk,) = cut("# Title\n\nSome words.\n")
    assert chunk.text == "# Title\n\nSome words."
    assert chunk.embedded_text == "Title\n\nSome words."
    assert (chunk.char_start, chunk.char_end, chunk.tokens) == (0, 20, 4)


@pytest.mark.parametrize("text", ["", " \n\t\r\n", "\u3000"])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    assert cut(text) == []


def test_sections_that_do_not_fit_together_are_cut_at_their_headings() -> None:
    text = f"# A\n{numbered(10)}\n\n## B\n{numbered(10)}\n"
    chunks = cut(text)
    assert [chunk.heading_path for chunk in chunks] == [("A",), ("A", "B")]
    assert texts(chunks) == [f"# A\n{numbered(10)}", f"## B\n{numbered(10)}"]
    assert chunks[1].embedded_text == f"Title > A > B\n\n{numbered(10)}"


def test_small_neighbours_share_a_chunk_under_the_headings_above_both() -> None:
    chunks = cut("# A\n## B\nbee\n## C\nsea\n# D\n" + numbered(13))
    assert [(chunk.heading_path, chunk.text) for chunk in chunks] == [
        (("A",), "# A\n## B\nbee\n## C\nsea"),
        (("D",), "# D\n" + numbered(13)),
    ]


def test_a_heading_with_nothing_of_its_own_opens_the_chunk_of_the_next() -> None:
    chunks = cut(f"# A\n\n## B\n\n{numbered(11)}\n\n## C\n\n{numbered(11)}")
    assert [chunk.text.split("\n")[0] for chunk in chunks] == ["# A", "## C"]
    assert chunks[0].heading_path == ("A", "B")


def test_headings_in_code_do_not_cut() -> None:
    assert len(cut("```\n# not a heading\n```\n")) == 1


@pytest.mark.parametrize(
    ("between", "name"), [("\n\n", "paragraph"), ("\n", "line"), (". ", "sentence"), (" ", "word")]
)
def test_a_long_section_is_cut_at_the_best_boundary_within_reach(between: str, name: str) -> None:
    # Words joined by "-" may be cut between tokens only, which is worse than any of these.
    text = between.join(["a-b-c-d-e"] * 8)
    for chunk in cut(text, size=24):
        assert chunk.text.startswith("a-b"), name
        assert chunk.text.removesuffix(".").endswith("d-e"), name


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "One two three. Four\nfive six. Seven\n\neight. Nine\nten. Eleven twelve thirteen",
            "One two three. Four\nfive six. Seven",
        ),
        (
            "One two three. Four five six seven.\nEight nine. Ten eleven twelve thirteen",
            "One two three. Four five six seven.",
        ),
        (
            "One two three four five six seven. Eight nine ten eleven twelve thirteen",
            "One two three four five six seven.",
        ),
        (
            "«Раз два три четыре!» «Пять шесть семь восемь девять десять»",
            "«Раз два три четыре!»",
        ),
    ],
)
def test_paragraphs_go_before_lines_and_lines_before_sentences(text: str, first: str) -> None:
    assert cut(text, size=13, title="")[0].text == first


def test_neighbours_of_one_section_overlap_by_about_the_tokens_asked_for() -> None:
    chunks = cut(numbered(200), size=32, overlap=8, title="")
    shared = [len(set(a.text.split()) & set(b.text.split())) for a, b in pairwise(chunks)]
    assert all(4 <= count <= 8 for count in shared)


def test_without_overlap_nothing_is_said_twice() -> None:
    assert max(Counter(" ".join(texts(cut(numbered(200), 32, 0))).split()).values()) == 1


def test_sections_do_not_overlap() -> None:
    chunks = cut(f"# A\n{numbered(14)}\n# B\n{numbered(14)}", size=20, overlap=8)
    assert all(a.char_end <= b.char_start for a, b in pairwise(chunks))


def test_equal_passages_have_ids_of_their_own_that_do_not_depend_on_their_place() -> None:
    passage = numbered(14)
    text = f"{passage}\n\n{passage}"
    first, second = cut(text, size=15, title="")
    assert first.text == second.text
    assert first.chunk_id != second.chunk_id
    assert cut("\n\n\n" + text, size=15, title="")[0].chunk_id == first.chunk_id


def test_an_id_depends_on_the_document_and_on_what_is_embedded() -> None:
    def chunk_id(document_id: str, title: str, text: str) -> str:
        source = Document(document_id, title, text, "u", "text/plain", "s")
        return chunk_document(source, Words(), 16, 0)[0].chunk_id

    ids = {chunk_id("a", "t", "x"), chunk_id("b", "t", "x"), chunk_id("a", "u", "x"), chunk_id("a", "t", "y")}
    assert len(ids) == 4


def test_an_edit_leaves_the_ids_of_other_sections_alone() -> None:
    before = cut(f"# A\n{numbered(12)}\n\n# B\n{numbered(13)}")
    after = cut(f"# A\nnew and longer {numbered(11)}\n\n# B\n{numbered(13)}")
    assert before[-1].chunk_id == after[-1].chunk_id
    assert before[0].chunk_id != after[0].chunk_id


@pytest.mark.parametrize("tokens", TOKENIZERS, ids=lambda tokens: type(tokens).__name__)
@pytest.mark.parametrize("title", [numbered(100), "x" * 5000, "😀" * 200])
def test_a_long_title_leaves_at_least_half_of_the_room_to_the_text(tokens: Tokens, title: str) -> None:
    source = Document("d", title, numbered(60), "u", "text/plain", "s")
    for chunk in assert_sound(source, tokens, 32, 8):
        assert tokens.count(chunk.title) <= 16
        assert title.startswith(chunk.title.removesuffix("…"))


def test_of_a_long_path_the_outermost_headings_give_way_first() -> None:
    names = [f"{numbered(5)} h{level}" for level in range(1, 5)]
    text = "".join(f"{'#' * level} {name}\n" for level, name in enumerate(names, start=1)) + "text"
    for chunk in cut(text, size=32):
        assert (chunk.title, chunk.heading_path) == ("Title", tuple(names[2:]))


FRAGMENTS = [
    *("word ", "Hello. ", "\n", "\n\n", "\r\n", "\r", "\t", "  ", "a", "B! ", "1234 ", "___", "\x0b", "\x1c", "---\n"),
    *("# H\n", "## Sub head\n", "Title\n=====\n", "- item\n", "```\n# c\n```\n", "    code\n", "| a | b |\n", "> q\n"),
    *(
        "x" * 150,
        "é",
        "e\u0301",
        "😀",
        "👨\u200d👩\u200d👧",
        "日本語。",
        "\u200b",
        "\u00ad",
        "ﷺ",
        "\ufeff",
        "long " * 40,
    ),
]


@pytest.mark.parametrize("tokens", TOKENIZERS, ids=lambda tokens: type(tokens).__name__)
@pytest.mark.parametrize("media_type", ["text/markdown", "text/x-rst", "text/plain"])
def test_any_text_is_covered_by_chunks_that_fit(tokens: Tokens, media_type: MediaType) -> None:
    random = Random(f"{type(tokens).__name__} {media_type}")
    titles = ["", "Title", "H", numbered(40), "😀" * 30]
    for _ in range(60):
        text = "".join(random.choices(FRAGMENTS, k=random.choice([1, 3, 10, 60, 200])))
        size = random.choice([16, 17, 32, 128])
        overlap = random.choice([0, 1, size // 4, size // 2])
        assert_sound(Document("d", random.choice(titles), text, "u", media_type, "s"), tokens, size, overlap)


@pytest.mark.parametrize("tokens", TOKENIZERS, ids=lambda tokens: type(tokens).__name__)
@pytest.mark.parametrize(
    "text",
    [
        "x" * 30_000,
        "word " * 6_000,
        "a\n" * 10_000,
        "日" * 15_000,
        "# a\n" * 2_000,
        "\u200b" * 30_000,
        "# " + "h" * 30_000,
    ],
    ids=["one word", "one line", "lines", "no spaces", "bare headings", "invisible", "one heading"],
)
def test_a_large_and_odd_text_is_cut(tokens: Tokens, text: str) -> None:
    assert_sound(document(text), tokens, 128, 32)


class Counting(Words):
    """Notes how many characters it was given."""

    characters = 0

    def offsets(self, text: str) -> list[tuple[int, int]]:
        self.characters += len(text)
        return super().offsets(text)


@pytest.mark.parametrize("unit", ["word ", "x", "a\n", "# a\n\nb\n\n"])
def test_the_work_grows_with_the_text_and_not_faster(unit: str) -> None:
    def work(repeats: int) -> int:
        tokens = Counting()
        chunk_document(document(unit * repeats), tokens, 64, 16)
        return tokens.characters

    assert work(8_000) < 4.5 * work(2_000)


def test_the_python_topics_are_cut_with_a_real_tokenizer(models: Path) -> None:
    from llmops_core.corpus.sources.python_topics import PythonTopicsSource
    from llmops_core.models.tokens import load_tokens

    tokens = load_tokens(models / "minilm")
    for source in PythonTopicsSource().read():
        assert isinstance(source, Document)
        first, *_ = assert_sound(source, tokens, 128, 32)
        assert first.text.startswith(f"{source.title}\n***")
        assert "***" not in first.embedded_text
