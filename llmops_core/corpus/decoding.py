"""Bytes to text, and what makes a text unfit: the same rules for every source.

Reasons are written for the owner of the document, since they end up in `corpus_rejected`.
"""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark; raises `ValueError` whose text names the first bad byte."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        guess = " (it looks like UTF-16)" if data.startswith(_UTF16_MARKS) else ""
        raise ValueError(
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}{guess}; save it as UTF-8"
        ) from error


def text_problem(text: str) -> str | None:
    """Say why a text cannot be a document (nothing to see, NUL, half a surrogate pair), or None if it can."""
    position = text.find("\0")
    if position >= 0:
        return f"NUL character at offset {position}: probably not a text"
    if half := _SURROGATE.search(text):
        return f"half a surrogate pair at character {half.start()}: the text was cut or escaped wrongly"
    if not any(character.isprintable() and not character.isspace() for character in text):
        return "empty: no visible character"
    return None
