"""The spools of a gateway, one an assistant, and the thread that ships what is sealed."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from llmops_core.errors import LlmopsError, SpoolError
from llmops_core.settings import Settings
from llmops_core.traffic.columns import TRAFFIC_TABLES
from llmops_core.traffic.find import Sought
from llmops_core.traffic.folder import abandoned
from llmops_core.traffic.ingest import taken_by_all
from llmops_core.traffic.shipping import Shipper
from llmops_core.traffic.spool import SpoolWriter
from llmops_gateway.open_lakehouse import OpenLakehouse

log = logging.getLogger("llmops.gateway")

SHIP_EVERY_S = 1.0
# Rows stay on local disk until Iceberg has them, so that a request can be shown at once; then they are only in the way.
FORGET_EVERY_S = 15.0


class Spools:
    """Opens a spool when an assistant is first asked, and keeps it until the gateway ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lakehouse = OpenLakehouse(settings)
        self._writers: dict[str, SpoolWriter] = {}
        self._unopened: dict[str, str] = {}
        self._shippers: dict[str, Shipper] = {}
        self._troubles: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-shipper", daemon=True)

    def start(self, assistants: Iterable[str]) -> None:
        """Open the spools of these assistants, so that what the last run left is shipped, and begin to ship."""
        for assistant in assistants:
            self._try_to_open(assistant)
        self._thread.start()

    def stop(self) -> None:
        """Seal and ship everything, also what other gateways that are gone left behind."""
        self._stop.set()
        self._thread.join()
        for writer in self._writers.values():
            writer.close()
        for assistant in self._writers:
            self._guarded(assistant, self._ship_abandoned)
        self._lakehouse.close()

    def of(self, assistant: str) -> SpoolWriter:
        """The spool of an assistant, ready to be written to; raises `SpoolError` with the reason if it is not.

        Blocks while it is opened; see `is_open`.
        """
        writer = self._writers.get(assistant) or self._open(assistant)
        if not writer.healthy():
            raise SpoolError(writer.last_error or f"The spool of {assistant} is closed.")
        return writer

    def is_open(self, assistant: str) -> bool:
        """Whether the spool of an assistant was opened."""
        return assistant in self._writers

    def find(self, request_id: str) -> dict[str, Any]:
        """A logged request as the row's JSON, whichever gateway answered it. Blocks.

        A spool that cannot be read is an error, `SpoolError`, only if the row is nowhere else. Raises `NotFoundError`, too, and
        `LakehouseError`.
        """
        writers = list(self._writers.values())
        for writer in writers:
            found = writer.find(request_id)
            if found is not None:
                return found
        sought = Sought(request_id, {writer.gateway_id for writer in writers})
        found = sought.on_disk(self._settings.spool)
        if found is not None:
            return found
        with self._lakehouse.use() as lakehouse:
            return sought.in_lakehouse(lakehouse, lakehouse.assistants())

    def problems(self) -> dict[str, str]:
        """Assistant → why its rows cannot be written."""
        failing = {name: str(writer.last_error) for name, writer in dict(self._writers).items() if not writer.healthy()}
        return {**self._unopened, **failing}

    def _open(self, assistant: str) -> SpoolWriter:
        with self._lock:
            if assistant not in self._writers:
                try:
                    self._writers[assistant] = SpoolWriter(self._settings.spool, assistant).open()
                except LlmopsError as error:
                    self._unopened[assistant] = str(error)
                    raise SpoolError(str(error)) from error
                self._unopened.pop(assistant, None)
            return self._writers[assistant]

    def _try_to_open(self, assistant: str) -> None:
        known = self._unopened.get(assistant)
        try:
            self._open(assistant)
        except SpoolError as error:
            if str(error) != known:
                log.error("%s: nothing can be logged, so nothing is served: %s", assistant, error)

    def _run(self) -> None:
        forgotten_at = time.monotonic()
        while not self._stop.wait(SHIP_EVERY_S):
            for assistant in list(self._unopened):
                self._try_to_open(assistant)
            for assistant in list(self._writers):
                self._guarded(assistant, self._ship)
            if time.monotonic() - forgotten_at > FORGET_EVERY_S:
                forgotten_at = time.monotonic()
                for assistant in list(self._writers):
                    self._guarded(assistant, self._forget)
                    self._guarded(assistant, self._ship_abandoned)

    def _guarded(self, assistant: str, work: Callable[[str], None]) -> None:
        """Do what may fail and is tried again soon; a failure is reported once, not every second while it lasts."""
        what = (assistant, work.__name__)
        try:
            work(assistant)
        except Exception as error:  # storage, catalog and drivers raise what they like; the rows wait on local disk
            if self._troubles.get(what) != str(error):
                log.warning("%s: the request log is not shipped, and waits on local disk: %s", assistant, error)
            self._troubles[what] = str(error)
        else:
            if self._troubles.pop(what, None):
                log.warning("%s: the request log is shipped again", assistant)

    def _ship(self, assistant: str) -> None:
        if assistant not in self._shippers:
            with self._lakehouse.use() as lakehouse:
                filesystem, root = lakehouse.spool()
            self._shippers[assistant] = Shipper(self._writers[assistant].folder, filesystem, root, assistant)
        self._shippers[assistant].ship()

    def _forget(self, assistant: str) -> None:
        shipper = self._shippers.get(assistant)
        if shipper:
            shipper.forget(self._taken(assistant, self._writers[assistant].gateway_id))

    def _ship_abandoned(self, assistant: str) -> None:
        """Ship what gateways that are gone left on this disk; a killed one may never come back under its name."""
        with self._lakehouse.use() as lakehouse:
            filesystem, root = lakehouse.spool()
        for folder in abandoned(self._settings.spool, assistant):
            shipper = Shipper(folder, filesystem, root, assistant)
            shipper.ship()
            shipper.forget(self._taken(assistant, folder.gateway_id))

    def _taken(self, assistant: str, gateway_id: str) -> int:
        with self._lakehouse.use() as lakehouse:
            return taken_by_all(lakehouse.table(assistant, name) for name in TRAFFIC_TABLES)[gateway_id]
