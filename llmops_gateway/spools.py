"""The spools of a gateway, one an assistant, and the thread that ships what is sealed."""

import logging
import threading
from typing import Any

from llmops_core.errors import LlmopsError, SpoolError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.shipping import Shipper
from llmops_core.traffic.spool import SpoolWriter

log = logging.getLogger("llmops.gateway")

SHIP_EVERY_S = 1.0
# Rows stay on local disk until Iceberg has them, so that a request can be shown at once; then they are only in the way.
FORGET_EVERY_S = 15.0


class Spools:
    """Opens a spool when an assistant is first asked, and keeps it until the gateway ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writers: dict[str, SpoolWriter] = {}
        self._shippers: dict[str, Shipper] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-shipper", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """Seal everything and ship it once more."""
        self._stop.set()
        self._thread.join()
        for writer in self._writers.values():
            writer.close()
        self._ship()

    def of(self, assistant: str) -> SpoolWriter:
        """The spool of an assistant, ready to be written to; raises `SpoolError` with the reason if it is not."""
        with self._lock:
            writer = self._writers.get(assistant)
            if writer is None:
                writer = SpoolWriter(self._settings.spool, assistant).open()
                self._writers[assistant] = writer
        if not writer.healthy():
            raise SpoolError(writer.last_error or f"The spool of {assistant} is closed.")
        return writer

    def find(self, request_id: str) -> dict[str, Any] | None:
        """A logged request that is still on local disk, as the row's JSON."""
        for writer in list(self._writers.values()):
            found = writer.find(request_id)
            if found is not None:
                return found
        return None

    def problems(self) -> dict[str, str]:
        """Assistant → why its rows cannot be written."""
        return {name: str(writer.last_error) for name, writer in self._writers.items() if not writer.healthy()}

    def _run(self) -> None:
        since_forget = 0.0
        while not self._stop.wait(SHIP_EVERY_S):
            self._ship()
            since_forget += SHIP_EVERY_S
            if since_forget >= FORGET_EVERY_S:
                since_forget = 0.0
                self._forget()

    def _ship(self) -> None:
        for assistant, writer in list(self._writers.items()):
            try:
                if assistant not in self._shippers:
                    filesystem, root = Lakehouse.open(self._settings).spool()
                    self._shippers[assistant] = Shipper(writer.folder, filesystem, root, assistant)
                self._shippers[assistant].ship()
            except LlmopsError as error:
                log.warning("%s: the request log is not shipped: %s", assistant, error)

    def _forget(self) -> None:
        for assistant, shipper in list(self._shippers.items()):
            try:
                lakehouse = Lakehouse.open(self._settings)
                tables = [lakehouse.table(assistant, name) for name in ("traffic_requests", "traffic_feedback")]
                shipper.forget(taken_by_all(tables, self._writers[assistant].gateway_id))
            except LlmopsError as error:
                log.warning("%s: ingested segments stay on local disk: %s", assistant, error)
