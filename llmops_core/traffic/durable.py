"""Making files and folders survive a power cut: the few system calls that the spool stands on."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def sync_data(descriptor: int) -> None:
    """Bring a file's content, and as much metadata as reading it needs, onto the disk."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        # On macOS fsync stops at the drive's cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk: a new, renamed or removed file lasts only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(file: Path) -> None:
    """Bring the content of a file that is closed already onto the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        sync_data(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may stop early, as on a disk that is nearly full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(file: Path, data: bytes) -> None:
    """Give a file new content so that, whatever happens, either the old or the new one is found."""
    temporary = file.with_name(file.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(descriptor, data)
        sync_data(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(file)
    sync_folder(file.parent)


def probe_writing(file: Path, size: int) -> None:
    """Raise `OSError` unless `size` bytes can be written and synced beside the segments now; leaves nothing behind."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(descriptor, bytes(size))
            sync_data(descriptor)
        finally:
            os.close(descriptor)
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
