"""Files of a local warehouse survive a power cut: each is on the disk before the commit that names it.

The catalog's SQLite syncs its own pages. If what it names were still in the system's cache, a power cut would leave a table
whose metadata are empty, and log rows whose copies in the spool were deleted because the table had them.
"""

import os
from io import BufferedWriter, FileIO
from pathlib import Path

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from llmops_core.traffic.durable import sync_data, sync_folder


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's files, synced when they are closed. For `py-io-impl` of a catalog whose warehouse is a local folder."""

    def new_output(self, location: str) -> PyArrowFile:
        """A file to be written."""
        scheme, netloc, path = self.parse_location(location)
        return _DurableFile(location, path, self.fs_by_scheme(scheme, netloc))


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        file = Path(self._path)
        file.parent.mkdir(parents=True, exist_ok=True)
        return BufferedWriter(_SyncedFile(file, "wb" if overwrite else "xb"), self._buffer_size)


class _SyncedFile(FileIO):
    def close(self) -> None:
        if not self.closed:
            sync_data(self.fileno())
            sync_folder(Path(os.fsdecode(self.name)).parent)
        super().close()
