"""Bytes to text, and what makes a text unfit: the same rules for every source.

Reasons are written for the owner of the document, since they end up in `corpus_rejected`.
"""

import codecs
import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_AS_BROWSERS_DO = {"iso8859-1": "cp1252", "ascii": "cp1252"}
"""Pages that declare Latin-1 or ASCII mean the Windows code page, by the web's own standard."""


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark; raises `ValueError` whose text names the first bad byte."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        guess = " (it looks like UTF-16)" if data.startswith(_UTF16_MARKS) else ""
        raise ValueError(
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}{guess}; save it as UTF-8"
        ) from error


def decode_as(data: bytes, encoding: str) -> str:
    """Decode by the encoding that a page or a server declares; raises `ValueError` as `decode_utf8` does."""
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise ValueError(f"declares the unknown encoding {encoding!r}; save it as UTF-8") from error
    if name == "utf-8" or data.startswith(codecs.BOM_UTF8):
        return decode_utf8(data)
    try:
        return data.decode(_AS_BROWSERS_DO.get(name, name))
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"not {encoding}, which it declares ({error}); save it as UTF-8") from error


def text_problem(text: str) -> str | None:
    """Say why a text cannot be a document (nothing to see, NUL, half a surrogate pair), or None if it can."""
    position = text.find("\0")
    if position >= 0:
        sample = text[:1000]
        # ASCII characters in UTF-16 are valid UTF-8: each with a NUL beside it.
        guess = "UTF-16, save it as UTF-8" if sample.count("\0") * 3 > len(sample) else "not a text"
        return f"NUL character at offset {position}: probably {guess}"
    if half := _SURROGATE.search(text):
        return f"half a surrogate pair at character {half.start()}: the text was cut or escaped wrongly"
    if not any(character.isprintable() and not character.isspace() for character in text):
        return "empty: no visible character"
    return None
