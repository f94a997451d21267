from random import Random

import pytest

from llmops_core.chunks.structure import sections
from llmops_core.corpus.document import Document, MediaType


def document(text: str, media_type: MediaType = "text/markdown") -> Document:
    return Document("d", "Title", text, "d.md", media_type, "folder:docs")


def outline(text: str, media_type: MediaType = "text/markdown") -> list[tuple[tuple[str, ...], str]]:
    return [(s.heading_path, text[s.char_start : s.char_end]) for s in sections(document(text, media_type))]


def test_a_section_reaches_from_its_heading_to_the_next_and_knows_those_above() -> None:
    text = "intro\n# A\na\n### Deep\nd\n## B\nb\n# C\nc"
    assert outline(text) == [
        ((), "intro\n"),
        (("A",), "# A\na\n"),
        (("A", "Deep"), "### Deep\nd\n"),
        (("A", "B"), "## B\nb\n"),
        (("C",), "# C\nc"),
    ]


def test_rst_is_cut_at_underlined_titles() -> None:
    text = "Top\n***\n\na\n\nSub\n===\n\nb\n"
    assert outline(text, "text/x-rst") == [(("Top",), "Top\n***\n\na\n\n"), (("Top", "Sub"), "Sub\n===\n\nb\n")]


def test_plain_text_is_one_section() -> None:
    assert outline("# a\n\nb\n===\n", "text/plain") == [((), "# a\n\nb\n===\n")]


def test_an_empty_text_has_no_section() -> None:
    assert sections(document("")) == []


def test_the_body_begins_after_the_heading() -> None:
    (section,) = sections(document("Top\n===\n\nbody"))
    assert "Top\n===\n\nbody"[section.body_start :].lstrip("\n") == "body"


@pytest.mark.parametrize("media_type", ["text/markdown", "text/x-rst", "text/plain"])
def test_sections_cover_any_text_without_gap_or_overlap(media_type: MediaType) -> None:
    random = Random(7)
    parts = [
        "# H\n",
        "## Sub\r\n",
        "T\n===\n",
        "text ",
        "\n",
        "\r",
        "```\n",
        "> q\n",
        "\t",
        "😀",
        "---\n",
        "\x0c",
        "- i\n",
    ]
    for _ in range(300):
        text = "".join(random.choices(parts, k=random.randint(1, 40)))
        assert "".join(part for _, part in outline(text, media_type)) == text
