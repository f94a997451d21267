import pytest

from llmops_core.corpus.decoding import decode_utf8, text_problem


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert decode_utf8(b"\xef\xbb\xbfcaf\xc3\xa9") == "café"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"caf\xe9 au lait", "byte 0xe9 at offset 3"),
        (b"\xef\xbb\xbfok\xff", "byte 0xff at offset 5"),
        ("hello".encode("utf-16"), "it looks like UTF-16"),
    ],
)
def test_bytes_that_are_not_utf8_are_named_with_their_place(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match="not UTF-8") as caught:
        decode_utf8(data)
    assert says in str(caught.value)
    assert "save it as UTF-8" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("\u200b\ufeff\u00ad", "empty"),
        ("ab\0c", "NUL character at offset 2"),
        ("ab\ud83d", "half a surrogate pair at character 2"),
    ],
)
def test_a_text_that_cannot_be_a_document_says_why(text: str, says: str) -> None:
    assert says in (text_problem(text) or "")


@pytest.mark.parametrize("text", ["a", "\n\n 日本 ", "😀", "\ufeffx", "1\r\n2\x0c3"])
def test_any_visible_character_makes_a_text(text: str) -> None:
    assert text_problem(text) is None
