import pytest

from llmops_core.chunks.chunk import embedded_text, header_parts, leading_headings


def test_title_and_headings_go_before_the_text() -> None:
    assert embedded_text("Guide", ("Install", "Linux"), "Run it.") == "Guide > Install > Linux\n\nRun it."


@pytest.mark.parametrize(("title", "path"), [("", ()), ("", ("",))])
def test_a_text_without_a_place_stands_alone(title: str, path: tuple[str, ...]) -> None:
    assert embedded_text(title, path, " text\n") == "text"


def test_a_heading_that_repeats_the_title_is_not_doubled() -> None:
    assert header_parts("Guide", ("Guide", "", "Install", "Install")) == ("Guide", "Install")


@pytest.mark.parametrize(
    "heading",
    [
        "# Guide\n\n## The *if* statement\n",
        "## The `if` statement ##\r\n\r\n",
        "Guide\n*****\n\nThe if statement\n================\n\n",
        "================\nThe if statement\n================\n",
    ],
)
def test_headings_that_the_text_begins_with_are_said_once(heading: str) -> None:
    assert embedded_text("Guide", ("The if statement",), heading + "Body.") == "Guide > The if statement\n\nBody."


@pytest.mark.parametrize("text", ["## Other\nBody.", "Guide is a word\nBody.", "Body.\n# Guide\nmore", "Guide"])
def test_what_is_not_named_above_stays(text: str) -> None:
    assert embedded_text("Guide", (), text) == f"Guide\n\n{text}"


def test_each_name_is_passed_once() -> None:
    text = "# Guide\n# Guide\nBody."
    assert text[leading_headings(text, ("Guide",)) :] == "# Guide\nBody."


def test_a_text_that_is_all_heading_is_its_name() -> None:
    assert embedded_text("Guide", ("Install",), "## Install") == "Guide > Install"
