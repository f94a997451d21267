"""Says in words why catalog or storage did not do what was asked; drivers and clients raise errors of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.exceptions import RESTError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llmops_core.errors import LakehouseError


@contextmanager
def mapped_errors(what: str) -> Iterator[None]:
    """Raise `LakehouseError` for what the catalog, its database or the storage raises; `what` names the thing used."""
    try:
        yield
    except (OSError, RESTError, SQLAlchemyError) as error:
        raise LakehouseError(f"{what} cannot be used: {explain(error)}") from error


# By what drivers and file systems say: few of them hand on a number.
_WAYS_OUT = {
    "locked": "Another process holds the database (a backup, an open transaction): wait until it is done or end it, then try"
    " again.",
    "No space left": "Free space on this volume, or make it larger, then try again.",
    "is full": "Free space on this volume, or make it larger, then try again.",
    "disk I/O error": "The volume is full or fails: free space, see dmesg, then try again.",
    "unable to open": "Look whether its folder is there, and whether the user may write there (rights, a read-only volume).",
    "readonly": "Give the user the right to write there, or mount the volume for writing.",
    "Read-only": "Give the user the right to write there, or mount the volume for writing.",
}


def explain(error: Exception) -> str:
    """What went wrong, and the way out."""
    cause = str(error.orig if isinstance(error, DBAPIError) and error.orig else error)
    otherwise = (
        "Try again when the catalog's server and the storage work (disk, mount, network); `llmops doctor` looks."
    )
    return f"{cause}. {next((way for words, way in _WAYS_OUT.items() if words in cause), otherwise)}"
