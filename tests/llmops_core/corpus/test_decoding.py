import pytest

from llmops_core.corpus.decoding import decode_as, decode_utf8, text_problem


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
        ("ab\0c", "NUL character at offset 2: probably not a text"),
        ("hello".encode("utf-16-le").decode(), "NUL character at offset 1: probably UTF-16, save it as UTF-8"),
        ("ab\ud83d", "half a surrogate pair at character 2"),
    ],
)
def test_a_text_that_cannot_be_a_document_says_why(text: str, says: str) -> None:
    assert says in (text_problem(text) or "")


@pytest.mark.parametrize("text", ["a", "\n\n 日本 ", "😀", "\ufeffx", "1\r\n2\x0c3"])
def test_any_visible_character_makes_a_text(text: str) -> None:
    assert text_problem(text) is None


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        ("Привет".encode("cp1251"), "windows-1251", "Привет"),
        (b"\x93caf\xe9\x94", "ISO-8859-1", "“café”"),
        ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "latin-1", "café"),
        (b"caf\xc3\xa9", "UTF8", "café"),
    ],
)
def test_a_declared_encoding_is_used_as_browsers_do(data: bytes, encoding: str, text: str) -> None:
    assert decode_as(data, encoding) == text


@pytest.mark.parametrize(
    ("data", "encoding", "says"),
    [
        (b"x", "klingon", "declares the unknown encoding 'klingon'"),
        (b"x", "hex", "not hex, which it declares"),
        (b"x", "a\0b", "declares the unknown encoding"),
        (b"\x98", "windows-1251", "not windows-1251, which it declares"),
        (b"caf\xe9", "utf-8", "not UTF-8: byte 0xe9"),
    ],
)
def test_a_declaration_that_does_not_hold_is_a_reason(data: bytes, encoding: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_as(data, encoding)
