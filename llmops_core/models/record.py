"""`model.json`: the note in a pulled model's folder that says what lies there and makes damage visible.

It is written last, and the folder is moved into place as a whole: a folder without a note is no model. Sizes are checked
whenever a model is used, which costs a few `stat` calls; hashes when a file is newer than its note.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmops_core.models.reference import Pullable

RECORD = "model.json"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class ModelRecord:
    """What `model.json` holds."""

    name: str
    source: str
    """Where the files come from, as pip or `assistant.yaml` writes it."""
    licence: str
    revision: str
    """The revision of the model with no prefixes of the user's own."""
    made_from: str
    """Content hash of what was pulled; another one here means that the platform now pins other files."""
    files: dict[str, FileRecord]


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> dict[str, Path]:
    """All files of a model folder by their POSIX path in it, sorted; hidden ones and the note itself are left out."""
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {
        name: found[name]
        for name in sorted(found)
        if name != RECORD and not any(part.startswith(".") for part in name.split("/"))
    }


def write_record(folder: Path, model: Pullable, revision: str) -> None:
    """Hash the files of `folder` and write its note."""
    files = {path: FileRecord(file.stat().st_size, sha256_of(file)) for path, file in files_below(folder).items()}
    record = ModelRecord(model.reference, model.source, model.licence, revision, model.made_from, files)
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_record(folder: Path) -> ModelRecord | None:
    """Read the note of a folder; None if there is none that makes sense."""
    try:
        data: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = {path: FileRecord(**file) for path, file in data.pop("files").items()}
        return ModelRecord(**data, files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def find_damage(folder: Path, made_from: str, *, thorough: bool = False) -> str | None:
    """Say what keeps a folder from being the whole model, as the end of a sentence; None if nothing does.

    `thorough` also hashes the files that were written after the note.
    """
    if not folder.exists():
        return f"is not there yet ({folder})"
    record = read_record(folder)
    if record is None:
        return f"is damaged: {folder / RECORD} is missing or broken"
    if record.made_from != made_from:
        return f"in {folder} was pulled by another version of this platform, which pins other files"
    noted_at = (folder / RECORD).stat().st_mtime_ns
    for name, expected in record.files.items():
        file = folder / name
        try:
            found = file.stat()
        except OSError:
            return f"is damaged: {file} is missing"
        if found.st_size != expected.size:
            return f"is damaged: {file} has {found.st_size} bytes instead of {expected.size}"
        if thorough and found.st_mtime_ns > noted_at and sha256_of(file) != expected.sha256:
            return f"is damaged: {file} has other content than was pulled"
    return None
