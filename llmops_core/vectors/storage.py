"""Where a table of the vector index lies, and the boundary at which Lance's errors become ours.

A table is `<uri>/<name>.lance`, LanceDB's own layout, so `lancedb.connect(uri).open_table(name)` opens it. It is worked
through `lance`, LanceDB's engine, since `lancedb` cannot optimise an index without compacting the table as well, pays
2 ms a query to a second event loop, and takes four times as long to import (1.4 s). Knows nothing of chunks.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from llmops_core.errors import ConfigError, ConflictError, IndexCorruptError, LlmopsError

if TYPE_CHECKING:
    from lance import LanceDataset

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Pattern of the names that tables and versions may have."""
LOCK_WAIT_SECONDS = 600.0
# How Lance says that somebody else was faster.
_CONFLICT = r"(?i)(commit|ref) conflict|incompatible transaction|concurrent|already exists"


@dataclass(frozen=True)
class TableLocation:
    """A table `name` below `uri`: a folder or `s3://bucket/prefix`."""

    uri: str
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise ConfigError(f"{self.name!r} cannot name an index table: use letters, digits, '.', '_' and '-'.")

    def __str__(self) -> str:
        return f"the vector index {self.path}"

    @property
    def path(self) -> str:
        """Address of the Lance data set."""
        return f"{self.uri.rstrip('/')}/{self.name}.lance"

    @property
    def folder(self) -> Path | None:
        """The data set's folder; None on an object store."""
        if self.path.startswith("file://"):
            return Path(self.path.removeprefix("file://"))
        return None if "://" in self.path else Path(self.path)

    def open(self) -> "LanceDataset | None":
        """The table at its newest Lance version; None if it was never made. Raises `IndexCorruptError`."""
        import lance

        with readable(self):
            try:
                return lance.dataset(self.path, storage_options=storage_options())
            except (ValueError, OSError) as error:
                if "was not found" in str(error):
                    return None
                raise

    def exists(self) -> bool:
        """Whether there is a folder of this table; never on an object store, which has none."""
        return self.folder is not None and self.folder.exists()

    def drop(self) -> None:
        """Delete a table that cannot be read, with all its versions; raises `IndexCorruptError` on an object store.

        There, Lance deletes only what it can read, and so do we: a wrong prefix must not cost more than an index.
        """
        if self.folder is None:
            raise corrupt(self, "its newest manifest is damaged. Delete everything below that address first")
        shutil.rmtree(self.folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one build of a folder go on at a time; the others wait, at most ten minutes, then get `ConflictError`.

        The operating system lets go of the lock when its holder dies. An object store has no such lock: there, a build
        that another one met is told so by `sole_writer`.
        """
        if self.folder is None:
            yield
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{self.folder}.lock", timeout=LOCK_WAIT_SECONDS):
                yield
        except Timeout as error:
            raise ConflictError(
                f"Another build of {self.path} has been running for {LOCK_WAIT_SECONDS:.0f} s. Wait for it, then build again."
            ) from error

    def drop_lock(self) -> None:
        """Delete the file of `lock`, by who holds it and knows that no build of this table will come."""
        if self.folder is not None:
            Path(f"{self.folder}.lock").unlink(missing_ok=True)


def table_names(uri: str) -> list[str]:
    """The tables below `uri`, also those without a version."""
    folder = TableLocation(uri, "any").folder
    if folder is not None:
        return sorted(path.name.removesuffix(".lance") for path in folder.parent.glob("*.lance"))
    import lancedb

    names: list[str] = []
    connection = lancedb.connect(uri, storage_options=storage_options())
    token: str | None = None
    while True:
        page = connection.list_tables(page_token=token)
        names.extend(page.tables)
        token = page.page_token
        if not token:
            return sorted(names)


def storage_options() -> dict[str, str]:
    """What Lance needs beyond the `AWS_…` variables that it reads by itself.

    `AWS_ENDPOINT_URL` (or `…_URL_S3`) names an S3-compatible server; plain http has to be allowed, and a region named, or
    Lance asks Amazon for the region of the bucket.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options = {"aws_endpoint": endpoint, "aws_region": region}
    return options | {"allow_http": "true"} if endpoint.startswith("http://") else options


@contextmanager
def readable(where: object) -> Iterator[None]:
    """Map what Lance raises to `ConflictError` or `IndexCorruptError`; `where` names the table or version."""
    try:
        yield
    except LlmopsError:
        raise
    except BaseException as error:
        # Lance raises these as it pleases; on garbage its Rust code panics, which PyO3 raises as a BaseException.
        foreign = isinstance(error, (ValueError, OSError, RuntimeError, LookupError))
        if not foreign and type(error).__name__ != "PanicException":
            raise
        if re.search(_CONFLICT, str(error)):
            raise conflict(where) from error
        raise corrupt(where, str(error)) from error


@contextmanager
def sole_writer(where: object, dataset: "LanceDataset", commits: int) -> Iterator[None]:
    """Do a step that makes at most `commits` Lance versions; raises `ConflictError` if somebody else made one, too."""
    before = dataset.version
    if dataset.latest_version != before:
        raise conflict(where)
    yield
    if dataset.version - before > commits:
        raise conflict(where)


def conflict(where: object) -> ConflictError:
    """Somebody else built the same table."""
    return ConflictError(f"Another build wrote {where} at the same time; no version was made. Build again.")


def corrupt(where: object, why: str) -> IndexCorruptError:
    """A table or version cannot be read."""
    return IndexCorruptError(
        f"Cannot read {where}: {why}. If its storage can be reached, files are damaged or missing; the next build makes the"
        " index anew from the lakehouse: llmops build"
    )
