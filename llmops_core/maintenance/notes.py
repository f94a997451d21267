"""What maintenance remembers between two runs: since when a thing has been needed by nothing, and when it ran last.

A file or an index version may be open in a process that nobody can ask. So nothing goes when it is first found: it is noted,
and goes when a later run finds it unneeded still. Notes lie in the warehouse, `_maintenance/<name>.json`; one that is
lost or damaged makes every grace begin anew.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from llmops_core.lakehouse.lakehouse import Lakehouse

# Longer than a run reads or writes; shorter than a day, so that the daily run finds due what the one before it has noted.
GRACE = timedelta(hours=20)
# A gap between two runs that makes the clock a suspect.
LEAP = timedelta(days=7)
_RAN_AT = "ran_at"


class Notes:
    """Thing → since when it has been needed by nothing."""

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

    def trusted(self, now: datetime) -> datetime:
        """The present by which retention counts: `now`, unless only this run says so.

        A clock that leaps ahead would make everything old at once. After a gap of more than a week, whether the machine
        was off or its clock is wrong, what counts is the moment of the last run, and the next run decides.
        """
        last = self._since.get(_RAN_AT, now)
        return last if now - last > LEAP else now

    def ran(self, now: datetime) -> None:
        """Remember that maintenance ran."""
        self._write({_RAN_AT: now})

    def _read(self) -> dict[str, datetime]:
        try:
            with self._filesystem.open_input_stream(self._path) as stream:
                return {str(k): datetime.fromisoformat(v) for k, v in json.loads(stream.read()).items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, since: Mapping[str, datetime]) -> None:
        self._filesystem.create_dir(self._path.rpartition("/")[0], recursive=True)
        with self._filesystem.open_output_stream(self._path) as stream:
            stream.write(json.dumps({thing: first.isoformat() for thing, first in since.items()}).encode())
