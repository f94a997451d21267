"""What maintenance remembers between two runs: since when a thing has been needed by nothing, and when it ran last.

A file or an index version may be open in a process that nobody can ask. So nothing goes when it is first found: it is noted,
and goes when a later run finds it unneeded still. Notes lie in the warehouse, `_maintenance/<name>.json`; one that is
lost or damaged makes every grace begin anew.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.lakehouse import Lakehouse

# Longer than a run reads or writes; shorter than a day, so that the daily run finds due what the one before it has noted.
GRACE = timedelta(hours=20)
# A gap between two runs that makes the clock a suspect: that of the daily run is well below.
LEAP = timedelta(days=2)
_RAN_AT, _DOUBTED_AT = "ran_at", "doubted_at"


class Notes:
    """Thing → since when it has been needed by nothing. Raises `LakehouseError` when the storage fails."""

    def __init__(self, lakehouse: Lakehouse, name: str) -> None:
        self._filesystem, self._path = lakehouse.filesystem(f"{lakehouse.warehouse()}/_maintenance/{name}.json")
        self._since = self._read()

    def due(self, unneeded: Collection[str], now: datetime) -> list[str]:
        """Note what is unneeded now, forget what is needed again, and return what has been unneeded for the grace."""
        # A moment that has not come yet was noted by a clock that was wrong.
        noted = {thing: min(self._since.get(thing, now), now) for thing in sorted(unneeded)}
        self._since = noted
        return [thing for thing, first in noted.items() if now - first >= GRACE]

    def save(self, gone: Collection[str]) -> None:
        """Write the notes, without what has gone."""
        self._write({thing: first for thing, first in self._since.items() if thing not in set(gone)})

    def doubt(self, now: datetime) -> str | None:
        """Why a run at this moment must delete nothing; None if the clock can be believed.

        A clock that leaps ahead makes everything old at once, and one that goes back lets the grace of new things end when it
        is put right. Both look like a long gap between two runs. So after one, the clock is believed only when a run at least
        the grace later still sees it there.
        """
        last, doubted = self._since.get(_RAN_AT, now), self._since.get(_DOUBTED_AT)
        if timedelta(0) <= now - last <= LEAP or (doubted and now - doubted >= GRACE):
            return None
        return (
            f"The clock says {now.isoformat()}, and at the last maintenance it said {last.isoformat()}. If it is right,"
            f" maintenance goes on with the first run that is {GRACE // timedelta(hours=1)} hours later or more; if not, set it."
        )

    def ran(self, now: datetime) -> None:
        """Remember that maintenance ran."""
        self._write({_RAN_AT: now})

    def doubted(self, now: datetime) -> None:
        """Remember since when the clock has been where it is now, and has not been believed."""
        first = self._since.get(_DOUBTED_AT, now)
        self._write({**self._since, _DOUBTED_AT: min(first, now)})

    def _read(self) -> dict[str, datetime]:
        with mapped_errors(self._path):
            try:
                with self._filesystem.open_input_stream(self._path) as stream:
                    content = stream.read()
            except FileNotFoundError:
                return {}
        try:
            return {str(thing): datetime.fromisoformat(first) for thing, first in json.loads(content).items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def _write(self, since: Mapping[str, datetime]) -> None:
        content = json.dumps({thing: first.isoformat() for thing, first in since.items()}).encode()
        with mapped_errors(self._path):
            self._filesystem.create_dir(self._path.rpartition("/")[0], recursive=True)
            with self._filesystem.open_output_stream(self._path) as stream:
                stream.write(content)
