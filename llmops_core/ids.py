"""Identifiers: content hashes for what content defines, UUIDv7 for what happened.

A content hash is SHA-256 cut to 32 hex digits (128 bits: no collision in practice), so that equal content has an equal id
on every machine and in every year.
"""

import hashlib
import json
import os
import time
import uuid
from typing import Any

HASH_LENGTH = 32


def canonical_json(value: Any) -> str:
    """Serialise to the one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """Hash a JSON value by its canonical form; a `str` or `bytes` is hashed as it is."""
    if isinstance(value, bytes):
        data = value
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
    else:
        data = canonical_json(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def uuid7() -> str:
    """Make a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then randomness, so ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def uuid7_time_ms(value: str) -> int:
    """Read the Unix milliseconds out of a UUIDv7; raises `ValueError` if it is none."""
    parsed = uuid.UUID(value)
    if parsed.version != 7:
        raise ValueError(f"{value} is not a UUIDv7")
    return parsed.int >> 80
