import pytest

from llmops_core.corpus.document import MediaType
from llmops_core.corpus.headings import BEGINNING, headings, line_starts, title_of


def outline(text: str, media_type: MediaType) -> list[tuple[int, str]]:
    return [(heading.level, heading.name) for heading in headings(text, media_type)]


def spans(text: str, media_type: MediaType) -> list[str]:
    return [text[heading.char_start : heading.char_end] for heading in headings(text, media_type)]


def test_markdown_headings_carry_their_words_without_markup() -> None:
    text = "# A `b` *c* [d](e) ##\n\nSetext\n======\n\n### ![alt](x.png) pic\n"
    assert outline(text, "text/markdown") == [(1, "A b c d"), (1, "Setext"), (3, "alt pic")]


def test_what_looks_like_a_heading_in_code_quotes_or_lists_is_content() -> None:
    text = "```sh\n# fenced\n```\n\n~~~\n# tilde\n~~~\n\n    # indented\n\n> # quoted\n\n- # item\n\n# Real\n"
    assert outline(text, "text/markdown") == [(1, "Real")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_offsets_hold_for_every_line_ending(newline: str) -> None:
    text = newline.join(["intro\u2028x\x0by", "", "# One", "body", "", "Two", "---", "end"])
    assert spans(text, "text/markdown") == ["# One" + newline, newline.join(["Two", "---", ""])]


def test_a_heading_on_the_last_line_ends_with_the_text() -> None:
    assert spans("# A\n## B", "text/markdown") == ["# A\n", "## B"]


def test_front_matter_is_no_heading_and_names_the_document() -> None:
    text = "---\ntitle: 'My  guide'\ntags: [a]\n---\n# Start\n"
    assert outline(text, "text/markdown") == [(1, "Start")]
    assert title_of(text, "text/markdown", "stem") == "My guide"


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: [broken\n---\n# Start\n",
        "---\ntitle: 7\n---\n# Start\n",
        "---\ndate: 2020-99-99\n---\n# Start\n",
        "---\n\ntext\n\n---\n# Start\n",
        "# Start\n",
        "text first\n\n## Start\n",
    ],
)
def test_without_a_title_in_front_matter_the_first_heading_names_the_document(text: str) -> None:
    assert title_of(text, "text/markdown", "stem") == "Start"


@pytest.mark.parametrize(
    ("shape", "media_type"),
    [
        ("{words}\n\nTwo\nlines\n---\n\n# Later\n", "text/markdown"),
        ("```\n{words}\n# code\n```\n\n# Later\n", "text/markdown"),
        ("---\ntags: {words}\n---\n#\n\nStart\n===\n", "text/markdown"),
        ("{words}\r\n\r\n====\r\nOver\r\n====\r\n", "text/x-rst"),
        ("{words}\n\n\nOver and under\n==============\n", "text/x-rst"),
    ],
)
def test_the_title_is_the_first_heading_wherever_the_beginning_ends(shape: str, media_type: MediaType) -> None:
    for length in range(BEGINNING - 80, BEGINNING + 3):
        text = shape.format(words="w" * length)
        first = next(heading.name for heading in headings(text, media_type) if heading.name)
        assert title_of(text, media_type, "stem") == first


def test_the_fallback_names_a_text_without_headings() -> None:
    assert title_of("just words", "text/markdown", "stem") == "stem"
    assert title_of("Title\n=====\n", "text/plain", "stem") == "stem"


def test_rst_levels_follow_the_order_in_which_styles_appear() -> None:
    text = "Top\n***\n\nOne\n===\n\ntext\n\nDeep\n----\n\nTwo\n===\n"
    assert outline(text, "text/x-rst") == [(1, "Top"), (2, "One"), (3, "Deep"), (2, "Two")]


def test_an_overlined_title_is_another_style_than_an_underlined_one() -> None:
    text = "=====\n Top\n=====\n\nNext\n====\n\n=====\nAgain\n=====\n"
    assert outline(text, "text/x-rst") == [(1, "Top"), (2, "Next"), (1, "Again")]
    assert spans(text, "text/x-rst")[0] == "=====\n Top\n=====\n"


def test_rst_titles_may_follow_each_other_without_a_blank_line() -> None:
    assert outline("Top\n===\nSub\n---\ntext\n", "text/x-rst") == [(1, "Top"), (2, "Sub")]


def test_rst_markup_in_a_title_is_dropped() -> None:
    assert outline(":ref:`x` and ``code`` **b**\n==========================\n", "text/x-rst") == [(1, "x and code b")]


@pytest.mark.parametrize(
    "text",
    [
        "two lines\nof a paragraph\n--------------\n",
        "text\n\n======\n\nmore\n",
        "a long title\n--\n",
        "=====  =====\nA      B\n=====  =====\n",
        "  indented\n==========\n",
        "....\n----\n",
    ],
)
def test_what_only_resembles_an_rst_title_is_text(text: str) -> None:
    assert outline(text, "text/x-rst") == []


def test_a_short_underline_counts_from_four_characters_or_the_width_of_the_title() -> None:
    assert outline("A longer title\n----\n", "text/x-rst") == [(1, "A longer title")]
    assert outline("ab\n--\n", "text/x-rst") == [(1, "ab")]
    assert outline("日本\n---\n", "text/x-rst") == []


def test_lines_begin_after_lf_crlf_and_cr_alone() -> None:
    assert line_starts("a\nb\r\nc\rd\x0be\u2028f") == [0, 2, 5, 7]


def test_python_topics_begin_with_their_title() -> None:
    from pydoc_data.topics import topics

    for text in topics.values():
        first = headings(text, "text/x-rst")[0]
        assert (first.level, first.char_start) == (1, 0)
        assert first.name == " ".join(text.split("\n")[0].split())
