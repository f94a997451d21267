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


class ChannelWatch:
    """Knows which release each channel of each assistant points to, as far as can be told."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._lakehouse = OpenLakehouse(settings)
        self._changed = changed
        self._channels: dict[str, dict[str, str]] = {}
        self._seen: dict[str, int | None] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="channel-watch", daemon=True)
        self.away_since: datetime | None = None
        """Since when the lakehouse cannot be read; None while it can."""

    def start(self) -> None:
        """Take what is on local disk, ask the lakehouse once, then go on asking."""
        for assistant in LocalCopy.assistants(self._settings.gateway):
            self._channels[assistant] = LocalCopy(self._settings.gateway, assistant).channels()
        self._ask()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
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
            copy.save_bundle(found)
        return found

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._ask()
            self._changed()

    def _ask(self) -> None:
        try:
            with self._lakehouse.use() as lakehouse:
                for assistant in lakehouse.assistants():
                    self._ask_about(lakehouse, assistant)
        except Exception as error:  # whatever a catalog, its driver or its storage raises while it is away
            if self.away_since is None:
                self.away_since = datetime.now(UTC)
                log.warning("The lakehouse cannot be read; serving what was seen last: %s", error)
            return
        if self.away_since is not None:
            log.warning("The lakehouse is back after %s", datetime.now(UTC) - self.away_since)
            self.away_since = None

    def _ask_about(self, lakehouse: Lakehouse, assistant: str) -> None:
        table = lakehouse.table(assistant, "release_events")
        snapshot = table.snapshot_id()
        if snapshot is None or self._seen.get(assistant) == snapshot:
            return
        releases = Releases(lakehouse, assistant)
        channels = {name: pointer.release_id for name, pointer in fold(releases.channels.events(snapshot)).items()}
        for release_id in set(channels.values()):
            try:
                self.fetch(assistant, release_id)
            except LlmopsError as error:
                log.error("%s: release %s cannot be fetched: %s", assistant, release_id, error)
        LocalCopy(self._settings.gateway, assistant).save_channels(channels)
        self._channels[assistant] = channels
        self._seen[assistant] = snapshot
