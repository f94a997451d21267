from contextlib import suppress

import pytest

from llmops_core.corpus.headings import headings
from llmops_core.corpus.html import html_to_markdown


def text_of(markup: str) -> str:
    return html_to_markdown(markup)[1]


def test_a_page_becomes_headings_paragraphs_lists_and_code() -> None:
    title, text = html_to_markdown(
        "<html><head><title> My &amp;\n page </title></head><body><h1>Top <code>x</code></h1>"
        "<p>One <b>bo</b>ld\n line</p>loose<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul><ol><li>n</li></ol>"
        "<pre>  keep\n  this</pre><h2>Sub</h2><p>end</p></body></html>"
    )
    assert title == "My & page"
    assert text == (
        "# Top x\n\nOne bold line\n\nloose\n\n- a\n   - b\n- c\n1. n\n\n```\n  keep\n  this\n```\n\n## Sub\n\nend\n"
    )


def test_what_a_reader_does_not_see_is_dropped() -> None:
    markup = (
        "<style>s{}</style><nav>menu</nav><script>x()</script><!-- note --><noscript>n</noscript>"
        "<template>t</template><svg><title>icon</title></svg><p>seen</p>"
    )
    assert html_to_markdown(markup) == ("", "seen\n")


def test_the_first_h1_names_a_page_without_a_title() -> None:
    assert html_to_markdown("<title> </title><h1>Real\n name</h1>")[0] == "Real name"


def test_tables_keep_their_rows() -> None:
    assert text_of("<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>") == "A | B\n1 | 2\n"


def test_a_cell_is_one_line_unless_it_is_there_for_layout() -> None:
    rows = "<tr><td><p>a</p><p>b</p></td><td><ul><li>c<li>d</ul></td></tr><tr><td>e<br>f<td>g</tr>"
    assert text_of(f"<table>{rows}</table>") == "a b | c d\ne\nf | g\n"
    assert text_of("<table><tr><td><h2>Top</h2><p>x</p><p>y</p></td></tr></table>") == "## Top\n\nx\ny\n"


def test_plain_words_do_not_turn_into_headings_or_fences() -> None:
    text = text_of("<p># not a heading<br>---<br>```</p><pre># comment\n``` inside</pre><h2>Real</h2>")
    assert [heading.name for heading in headings(text, "text/markdown")] == ["Real"]
    assert "# comment\n``` inside" in text


def test_tags_that_html_lets_one_leave_open_do_not_nest() -> None:
    assert text_of("<ul><li>a<li>b<li>c</ul><p>x<p>y") == "- a\n- b\n- c\n\nx\n\ny\n"


def test_paragraphs_of_one_item_stay_together() -> None:
    assert text_of("<ul><li><p>a</p><p>b</p></li><li><p>c</p></li></ul>") == "- a\n   b\n- c\n"


@pytest.mark.parametrize("markup", ["<div>" * 5000 + "deep", "<ul><li>" * 2000 + "deep", "<b><i>" * 3000 + "deep"])
def test_deep_nesting_is_no_problem(markup: str) -> None:
    assert "deep" in text_of(markup)


@pytest.mark.parametrize("markup", ["", "<html></html>", "<p> &nbsp; </p>", "<script>x</script>"])
def test_an_empty_page_gives_an_empty_text(markup: str) -> None:
    assert text_of(markup) == ""


@pytest.mark.parametrize("markup", ["<![foo[x]]>", "<![ x", "<!DOCTYPE [<!X", "<![CDATA", "<", "</", "&#xffffffff;"])
def test_a_page_that_the_parser_refuses_is_a_value_error_at_worst(markup: str) -> None:
    # What it refuses depends on the Python version.
    with suppress(ValueError):
        text_of(markup)
