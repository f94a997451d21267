"""How commands speak: one JSON object on standard output with `--json`, else text; progress always on standard error."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

# What is printed are names and messages of others: no markup and no emoji is meant by it.
progress = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say what is done while it takes long: beside a spinner on a terminal, else as a line."""
    if progress.is_terminal:
        with progress.status(what):
            yield
    else:
        progress.print(what)
        yield


def emit(value: Any, text: str, *, as_json: bool) -> None:
    """Print the result of a command."""
    sys.stdout.write((json.dumps(value, ensure_ascii=False, default=str) if as_json else text) + "\n")
    sys.stdout.flush()


def emit_error(kind: str, message: str) -> None:
    """Print why a command failed, as the one JSON object of `--json`; people read it on standard error."""
    emit({"error": {"type": kind, "message": message}}, "", as_json=True)


def place(document_id: str, char_start: int, char_end: int) -> str:
    """Where a chunk stands in its document."""
    return f"{document_id}, characters {char_start}–{char_end}"


def short(text: str, characters: int) -> str:
    """The text on one line, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def url_of(host: str, port: int) -> str:
    """The address of a server, without a path."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A plain table."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, one a line."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in values.items())
