"""The request spool, reading side: shipped segments in the lakehouse's storage.

A gateway's segments are read in order and without a gap: a later segment may be there first (S3 lists as it likes, and a
copy may be under way), but it waits for its predecessors, so that one number marks all that was taken.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from llmops_core.errors import LakehouseError, PermanentError
from llmops_core.traffic.line import decode_line, segment_name, segment_number


@dataclass(frozen=True)
class Segment:
    """A sealed segment: its lines, each with `kind`, `gateway_id`, `segment`, `row` and `payload`."""

    gateway_id: str
    number: int
    rows: list[dict[str, Any]]


def gateways(fs: FileSystem, root: str, assistant: str) -> list[str]:
    """The gateways that have shipped anything for an assistant. Raises `LakehouseError`."""
    folder = _folder(root, assistant)
    with _mapped_errors(folder):
        listed = fs.get_file_info(FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in listed if info.type == FileType.Directory)


def numbers_after(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> list[int]:
    """The numbers `last + 1`, `last + 2`, … up to the first that is not there; reads no rows. Raises `LakehouseError`."""
    there = _numbers(fs, _folder(root, assistant, gateway_id))
    numbers: list[int] = []
    while last + 1 + len(numbers) in there:
        numbers.append(last + 1 + len(numbers))
    return numbers


def gap_after(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> int | None:
    """The number `last + 1` if it is not there though a later one is; None if nothing is missing. Raises `LakehouseError`."""
    later = [number for number in _numbers(fs, _folder(root, assistant, gateway_id)) if number > last]
    return last + 1 if later and last + 1 not in later else None


def numbers_upto(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> list[int]:
    """The numbers up to `last` that are still there, ascending. Raises `LakehouseError`."""
    return sorted(number for number in _numbers(fs, _folder(root, assistant, gateway_id)) if number <= last)


def segments_after(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> Iterator[Segment]:
    """Read the segments behind `last`, one at a time, up to the first that is not there.

    Raises `LakehouseError` when the storage fails, `PermanentError` with file and line when a line is not what it should be.
    """
    for number in numbers_after(fs, root, assistant, gateway_id, last):
        yield _segment(fs, root, assistant, gateway_id, number)


def segments_across_gaps(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> Iterator[Segment]:
    """Like `segments_after`, but for all that are there: to look what waits, never to take it."""
    there = _numbers(fs, _folder(root, assistant, gateway_id))
    for number in sorted(number for number in there if number > last):
        yield _segment(fs, root, assistant, gateway_id, number)


def written_after(fs: FileSystem, root: str, assistant: str, gateway_id: str, last: int) -> list[tuple[int, float]]:
    """The numbers above `last` that are there, each with the Unix time at which it was shipped. Raises `LakehouseError`."""
    listed = _listed(fs, _folder(root, assistant, gateway_id))
    return [(number, info.mtime_ns / 1e9) for number, info in listed.items() if number > last]


def content(fs: FileSystem, root: str, assistant: str, gateway_id: str, number: int) -> bytes:
    """The lines of a segment as they are; none if it was removed. Raises `LakehouseError`."""
    path = f"{_folder(root, assistant, gateway_id)}/{segment_name(number)}"
    with _mapped_errors(path), suppress(FileNotFoundError), fs.open_input_stream(path) as stream:
        return bytes(stream.read())
    return b""


def remove_upto(fs: FileSystem, root: str, assistant: str, gateway_id: str, upto: int) -> int:
    """Delete shipped segments up to `upto`, which every table has taken; returns how many. Raises `LakehouseError`."""
    folder = _folder(root, assistant, gateway_id)
    # Oldest first: if it is interrupted, what is left is still without a gap.
    gone = numbers_upto(fs, root, assistant, gateway_id, upto)
    for number in gone:
        # Another maintenance may have been faster.
        with _mapped_errors(folder), suppress(FileNotFoundError):
            fs.delete_file(f"{folder}/{segment_name(number)}")
    return len(gone)


def _segment(fs: FileSystem, root: str, assistant: str, gateway_id: str, number: int) -> Segment:
    path = f"{_folder(root, assistant, gateway_id)}/{segment_name(number)}"
    with _mapped_errors(path), fs.open_input_stream(path) as stream:
        content = stream.read()
    return Segment(gateway_id, number, _rows(content, path, gateway_id, number))


def _folder(root: str, *below: str) -> str:
    return "/".join((root.rstrip("/"), *below))


def _numbers(fs: FileSystem, folder: str) -> set[int]:
    return set(_listed(fs, folder))


def _listed(fs: FileSystem, folder: str) -> dict[int, FileInfo]:
    with _mapped_errors(folder):
        listed = fs.get_file_info(FileSelector(folder, allow_not_found=True))
    return {number: info for info in listed if (number := segment_number(info.base_name)) is not None}


def _rows(content: bytes, path: str, gateway_id: str, number: int) -> list[dict[str, Any]]:
    *lines, rest = content.split(b"\n")
    if rest:
        lines.append(rest)
    rows = []
    for n, line in enumerate(lines):
        try:
            rows.append(decode_line(line, gateway_id, number, n))
        except ValueError as error:
            raise PermanentError(
                f"{path}, line {n + 1}: {error}. A sealed segment never changes, so the storage or a hand has damaged it: put"
                " the file back from the gateway's spool (or a version that the storage keeps), then ingest again."
            ) from error
    return rows


@contextmanager
def _mapped_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LakehouseError(f"The request spool at {path} cannot be reached: {error}") from error
