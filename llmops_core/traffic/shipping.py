"""Brings sealed spool segments into the lakehouse's storage, whole, in order and as often as one likes.

`<root>/<assistant>/<gateway_id>/<n>.jsonl`, the same bytes as on the gateway's disk. An open segment is never shipped, and a
local one is deleted only by `forget`, when the lakehouse is known to hold its rows. When and how often is the caller's.
"""

from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, SubTreeFileSystem

from llmops_core.errors import LakehouseError, PermanentError
from llmops_core.traffic.durable import sync_file, sync_folder
from llmops_core.traffic.folder import SpoolFolder
from llmops_core.traffic.line import segment_name, segment_number

# Where an object appears as a whole when it is closed; a rename there would be a second copy.
_OBJECT_STORES = ("s3", "gcs", "abfs")


class Shipper:
    """Ships the segments of one spool folder. `root` is the folder in `filesystem` that holds all assistants' segments."""

    def __init__(self, folder: SpoolFolder, filesystem: FileSystem, root: str, assistant: str) -> None:
        self._folder = folder
        self._filesystem = filesystem
        self._target = f"{root.rstrip('/')}/{assistant}/{folder.gateway_id}"
        self._shipped: int | None = None

    def ship(self) -> int:
        """Copy what is sealed and not there yet; returns the number of the last segment that is there.

        Raises `LakehouseError` when the storage fails (call again later: it goes on where it stopped), and
        `PermanentError` when a segment is missing here or another one of the same number is there.
        """
        try:
            if self._shipped is None:
                self._shipped = self._already_there()
            for number in self._folder.sealed():
                if number > self._shipped:
                    self._ship(number)
            return self._shipped
        except OSError as error:
            raise LakehouseError(
                f"Spool segments of {self._folder.path} cannot be copied to {self._target}: {error}. They stay on the"
                " gateway's disk until it works."
            ) from error

    def forget(self, upto: int) -> int:
        """Delete local segments up to `upto`, which the lakehouse has taken in; returns how many. See `SpoolFolder`."""
        try:
            return self._folder.forget(upto)
        except OSError as error:
            raise LakehouseError(f"{self._folder.path}: segments up to {upto} cannot be deleted: {error}") from error

    def _ship(self, number: int) -> None:
        last = self._shipped or 0
        if number != last + 1:
            raise PermanentError(
                f"{self._folder.path}: segment {last + 1} is missing, but {number} is here. Put {segment_name(last + 1)} back;"
                " if it is lost, an empty file of that name lets the later rows go on."
            )
        put(self._filesystem, f"{self._target}/{segment_name(number)}", self._folder.file(number).read_bytes())
        self._shipped = number

    def _already_there(self) -> int:
        """The last segment that the storage has of this gateway, after a look at whether it is the same."""
        listed = self._filesystem.get_file_info(FileSelector(self._target, allow_not_found=True))
        there = {n: info for info in listed if (n := segment_number(info.base_name)) is not None}
        here = self._folder.sealed()
        for number in here:
            if number in there:
                self._check_same(number, there[number])
        last, newest = max(there, default=0), max([self._folder.forgotten, *here])
        if last > newest:
            raise self._old_copy(f"it has segment {last}, and here {newest} is the newest")
        return max(last, self._folder.forgotten)

    def _check_same(self, number: int, there: FileInfo) -> None:
        size = self._folder.file(number).stat().st_size
        if there.size != size:
            raise self._old_copy(f"its segment {number} has {there.size} bytes, and here it has {size}")

    def _old_copy(self, difference: str) -> PermanentError:
        return PermanentError(
            f"{self._target} comes from another spool than {self._folder.path}: {difference}. Two gateways use copies of one"
            " folder, or it was restored from an old copy: move it away and start the gateway again, it will take a new id."
        )


def put(filesystem: FileSystem, path: str, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it, not even after a power cut. Raises `OSError`."""
    base, below = _base(filesystem, path)
    if base.type_name in _OBJECT_STORES:
        with base.open_output_stream(below) as stream:
            stream.write(content)
    else:
        base.create_dir(below.rpartition("/")[0], recursive=True)
        with base.open_output_stream(below + ".new") as stream:
            stream.write(content)
        if base.type_name == "local":
            # An empty file of this name would be taken for a segment without rows.
            sync_file(Path(below + ".new"))
        base.move(below + ".new", below)
        if base.type_name == "local":
            sync_folder(Path(below).parent)
    written = base.get_file_info(below)
    if written.type != FileType.File or written.size != len(content):
        raise OSError(f"{path}: {len(content)} bytes were written, but {written.size} are there")


def _base(filesystem: FileSystem, path: str) -> tuple[FileSystem, str]:
    """The filesystem below those that are a folder of another, and the path in it."""
    while isinstance(filesystem, SubTreeFileSystem):
        filesystem, path = filesystem.base_fs, f"{filesystem.base_path.rstrip('/')}/{path.lstrip('/')}"
    return filesystem, path
