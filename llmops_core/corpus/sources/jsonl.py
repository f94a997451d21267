"""One JSON object a line: the form in which data sets and exports of other systems come."""

import hashlib
import json
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from llmops_core.assistant import JsonlSource as JsonlSection
from llmops_core.corpus.decoding import decode_utf8, text_problem
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.files import FileText, documents_of
from llmops_core.errors import SourceError
from llmops_core.ids import content_hash


class JsonlSource:
    """Rows of a file; the id field is the document id as it is, a missing title is empty."""

    def __init__(self, section: JsonlSection, assistant_folder: Path) -> None:
        self.name = "jsonl:" + str(PurePosixPath(section.path))
        self._section = section
        base = Path(os.path.abspath(assistant_folder))  # noqa: PTH100 - resolve() would rename a linked file
        self._file = Path(os.path.abspath(base / Path(section.path).expanduser()))  # noqa: PTH100
        relative = self._file.relative_to(base) if self._file.is_relative_to(base) else self._file
        self._uri = relative.as_posix()

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the rows; blank lines are skipped. Raises `SourceError` if the file cannot be opened."""
        with self._open() as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                uri = f"{self._uri}#{number}"
                try:
                    yield from self._documents(line, uri)
                except ValueError as error:
                    yield Rejected(self.name, uri, f"line {number}: {error}")

    def stat_fingerprint(self) -> str:
        """Hash size and modification time, without reading the file."""
        with self._open() as file:
            status = os.fstat(file.fileno())
        return content_hash([self.name, self._fields(), status.st_size, status.st_mtime_ns])

    def content_fingerprint(self) -> str:
        """Hash the file's bytes."""
        with self._open() as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return content_hash([self.name, self._fields(), digest])

    def _fields(self) -> list[str]:
        return [self._section.id, self._section.title, self._section.text]

    def _open(self) -> BufferedReader:
        try:
            if self._file.exists() and not self._file.is_file():
                raise SourceError(f"Source {self.name}: {self._file} is not a file. Name one in sources.path")
            return self._file.open("rb")
        except FileNotFoundError as error:
            raise SourceError(
                f"Source {self.name}: file {self._file} does not exist. Put it there, or correct sources.path in "
                "assistant.yaml"
            ) from error
        except OSError as error:
            raise SourceError(
                f"Source {self.name}: file {self._file} cannot be opened: {error.strerror}. Check its permissions"
            ) from error

    def _documents(self, line: bytes, uri: str) -> Iterator[Document]:
        """Read one row, whose document is several if it is long; raises `ValueError` with the reason if it is no document."""
        try:
            row = json.loads(decode_utf8(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
        except RecursionError as error:
            raise ValueError("not JSON: nested too deeply") from error
        if not isinstance(row, dict):
            raise ValueError(f"expected a JSON object, found {_kind(row)}")
        document_id = _field(row, self._section.id)
        if isinstance(document_id, int) and not isinstance(document_id, bool):
            document_id = str(document_id)
        document_id = _text(self._section.id, document_id)
        title = _title(self._section.title, row.get(self._section.title))
        text = _text(self._section.text, _field(row, self._section.text))
        yield from documents_of(FileText(title, text, "text/plain"), document_id, uri, self.name)


def _title(name: str, value: Any) -> str:
    """A title may be missing, null or blank: it is then empty."""
    return "" if value is None or value == "" or str(value).isspace() else _text(name, value).strip()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, found {_kind(value)}")
    if problem := text_problem(value):
        raise ValueError(f"{name}: {problem}")
    return value


def _field(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        present = ", ".join(list(row)[:10]) or "none"
        raise ValueError(f"no field {name!r}; fields of this row: {present}. Say which to read in assistant.yaml")
    return row[name]


def _kind(value: Any) -> str:
    """JSON's name of a value's type."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
