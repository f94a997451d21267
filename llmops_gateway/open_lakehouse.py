"""The lakehouse as a process that runs for months holds it: opened once, and anew after an error.

Each opening makes connections that are closed only when Python collects garbage, which in a process with models in memory
may take days: opened at every look, they would use up the files that a process may have.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llmops_core.errors import PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings


class OpenLakehouse:
    """Lends the lakehouse to any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lakehouse: Lakehouse | None = None
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[Lakehouse]:
        """The lakehouse, opened if it is not; what it raises goes through, and closes it if that may have been its fault."""
        with self._lock:
            lakehouse = self._lakehouse = self._lakehouse or Lakehouse.open(self._settings)
        try:
            yield lakehouse
        except PermanentError:
            raise
        except Exception:
            with self._lock:
                if self._lakehouse is lakehouse:
                    self._lakehouse = None
            lakehouse.catalog.close()
            raise

    def close(self) -> None:
        """Close it until it is used again."""
        with self._lock:
            if self._lakehouse:
                self._lakehouse.catalog.close()
            self._lakehouse = None
