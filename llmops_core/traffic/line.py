"""One line of a spool segment, and the names of segment files: the format that gateway and asset side share.

A line is a JSON object and a newline: `format`, `kind`, `gateway_id`, `segment`, `row` (from 0, gapless), `payload`. The place
stands in the line itself, so that a row can be traced from the lakehouse to its file and counted exactly once.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from llmops_core.errors import PermanentError

FORMAT = 1
Kind = Literal["request", "feedback"]
KINDS: tuple[str, ...] = get_args(Kind)

OPEN, SEALED = ".open", ".jsonl"
_NAME = re.compile(r"(\d{12})(\.open|\.jsonl)")

_PLACE = ("format", "kind", "gateway_id", "segment", "row", "payload")


def segment_name(number: int, suffix: str = SEALED) -> str:
    """The file name of a segment: twelve digits, then `.open` while it is written and `.jsonl` once it is sealed."""
    return f"{number:012d}{suffix}"


def segment_number(name: str, suffix: str = SEALED) -> int | None:
    """The number in a file name; None for any file that is no segment with this suffix."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and match[2] == suffix else None


def encode_payload(payload: Mapping[str, Any]) -> bytes:
    """Serialise a payload; raises `PermanentError` if JSON cannot hold it (NaN, an object of a class)."""
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # A client may send half of a surrogate pair; escaped, it is kept as it came.
        return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise PermanentError(
            f"A row for the spool is not JSON: {error}. Keys: {', '.join(map(str, payload))}"
        ) from error


def encode_line(kind: str, gateway_id: str, segment: int, row: int, payload: bytes) -> bytes:
    """Put an encoded payload into its line."""
    head = f'{{"format":{FORMAT},"kind":"{kind}","gateway_id":"{gateway_id}","segment":{segment},"row":{row},"payload":'
    return b"".join((head.encode(), payload, b"}\n"))


def decode_line(line: bytes, gateway_id: str, segment: int, row: int) -> dict[str, Any]:
    """Read a line (without its newline) that should stand in this place; raises `ValueError` that says what is wrong.

    Raises `PermanentError` for a line of another format: it is sound, but this code is not the one to judge it.
    """
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__}, not an object")
    if value.get("format", FORMAT) != FORMAT:
        raise PermanentError(
            f"Spool of gateway {gateway_id}, segment {segment}, row {row} has format {value['format']!r}, and this version of"
            f" llmops reads format {FORMAT} alone. Run the version that wrote it, or a newer one."
        )
    if tuple(value) != _PLACE or not isinstance(value["payload"], dict) or value["kind"] not in KINDS:
        raise ValueError(f"it must have the keys {', '.join(_PLACE)}, a kind of {KINDS}, and an object as payload")
    place = (value["gateway_id"], value["segment"], value["row"])
    if place != (gateway_id, segment, row):
        raise ValueError(
            f"it says that it is (gateway, segment, row) {place}, but it stands at {(gateway_id, segment, row)}"
        )
    return value
