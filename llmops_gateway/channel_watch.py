"""Follows the channels: a thread that asks the lakehouse every second, and keeps the local copy up to date."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from llmops_core.errors import LlmopsError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.channels import fold
from llmops_core.release.manifest import bundle
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings
from llmops_gateway.local_copy import LocalCopy
from llmops_gateway.open_lakehouse import OpenLakehouse

log = logging.getLogger("llmops.gateway")

POLL_S = 1.0
# A gateway waits this long for its first look at the channels; then it starts on its local copy.
FIRST_LOOK_S = 10.0
STOP_S = 5.0


class ChannelWatch:
    """Knows which release each channel of each assistant points to, as far as can be told."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._lakehouse = OpenLakehouse(settings)
        self._changed = changed
        self._channels: dict[str, dict[str, str]] = {}
        self._seen: dict[str, int | None] = {}
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="channel-watch", daemon=True)
        self.away_since: datetime | None = None
        """Since when the lakehouse cannot be read; None while it can."""
        self._disk_problem: str | None = None

    def start(self) -> None:
        """Take what is on local disk and begin to ask the lakehouse; returns after the first look, if that comes soon."""
        for assistant in LocalCopy.assistants(self._settings.gateway):
            self._channels[assistant] = LocalCopy(self._settings.gateway, assistant).channels()
        self._thread.start()
        if not self._looked.wait(FIRST_LOOK_S):
            self._away(f"it does not answer within {FIRST_LOOK_S:.0f} s")

    def stop(self) -> None:
        """End the thread; one that hangs in the lakehouse ends with the process."""
        self._stop.set()
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._lakehouse.close()

    def assistants(self) -> list[str]:
        """The assistants that have ever had a release on a channel."""
        return sorted(self._channels)

    def channels(self, assistant: str) -> dict[str, str]:
        """Channel → release id."""
        return dict(self._channels.get(assistant, {}))

    def fetch(self, assistant: str, reference: str) -> dict[str, object]:
        """A release's bundle, from local disk or from the lakehouse; raises `NotFoundError`."""
        copy = LocalCopy(self._settings.gateway, assistant)
        found = copy.bundle(reference)
        if found is None:
            with self._lakehouse.use() as lakehouse:
                releases = Releases(lakehouse, assistant)
                release = releases.get(reference)
                found = bundle(release, releases.prompt_text(release))
            self._keep(lambda: copy.save_bundle(found))
        return found

    def _run(self) -> None:
        self._ask()
        self._looked.set()
        self._changed()
        while not self._stop.wait(POLL_S):
            self._ask()
            self._changed()

    def _ask(self) -> None:
        try:
            with self._lakehouse.use() as lakehouse:
                self._look(lakehouse)
        except Exception as error:  # whatever a catalog, its driver or its storage raises while it is away
            self._away(str(error))
            return
        if self.away_since is not None:
            log.warning("The lakehouse is back after %s", datetime.now(UTC) - self.away_since)
            self.away_since = None

    def _away(self, reason: str) -> None:
        if self.away_since is None:
            self.away_since = datetime.now(UTC)
            log.warning("The lakehouse cannot be read; serving what was seen last: %s", reason)

    def _look(self, lakehouse: Lakehouse) -> None:
        """Ask about each assistant; what fails for one is raised when the others were asked about."""
        failed: Exception | None = None
        for assistant in lakehouse.assistants():
            try:
                self._ask_about(lakehouse, assistant)
            except Exception as error:  # see _ask
                if self.away_since is None:
                    log.warning("%s: its channels cannot be read: %s", assistant, error)
                failed = failed or error
        if failed:
            raise failed

    def _ask_about(self, lakehouse: Lakehouse, assistant: str) -> None:
        table = lakehouse.table(assistant, "release_events")
        snapshot = table.snapshot_id()
        if snapshot is None or self._seen.get(assistant) == snapshot:
            return
        releases = Releases(lakehouse, assistant)
        channels = {name: pointer.release_id for name, pointer in fold(releases.channels.events(snapshot)).items()}
        copy = LocalCopy(self._settings.gateway, assistant)
        kept = True
        for release_id in set(channels.values()):
            try:
                self.fetch(assistant, release_id)
                kept = kept and copy.bundle(release_id) is not None
            except LlmopsError as error:
                log.error("%s: release %s cannot be fetched: %s", assistant, release_id, error)
        self._channels[assistant] = channels
        # What is not on local disk is tried again.
        if self._keep(lambda: copy.save_channels(channels)) and kept:
            self._seen[assistant] = snapshot

    def _keep(self, save: Callable[[], None]) -> bool:
        """Save to local disk; a disk that is full does not keep what was read from being served."""
        try:
            save()
        except OSError as error:
            problem = error.strerror or str(error)
            if problem != self._disk_problem:
                log.error(
                    "The channels cannot be kept in %s: %s. They are followed all the same, but a gateway that starts while"
                    " the lakehouse is away will not know the latest.",
                    self._settings.gateway,
                    problem,
                )
            self._disk_problem = problem
            return False
        self._disk_problem = None
        return True
