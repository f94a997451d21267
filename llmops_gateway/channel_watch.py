"""Follows the channels: a thread that asks the lakehouse every second, and keeps the local copy up to date.

A rollback that is decided here holds at once, whether the lakehouse is there or not: until the history has it, it lies over
what the history says. The same thread writes it there. Of how a write ended nothing is believed but the history itself, so a
rollback is in it once, wherever a gateway was killed.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from llmops_core.errors import (
    ConflictError,
    InvalidRequestError,
    LlmopsError,
    NotFoundError,
    PermanentError,
    RetryableError,
)
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.arms import Experiment, Plan
from llmops_core.release.channels import CANARY, Pointer, fold
from llmops_core.release.manifest import bundle
from llmops_core.release.registry import Releases
from llmops_core.release.rollback import Waiting, gone_back, outcome, past, record, target
from llmops_core.settings import Settings
from llmops_gateway.local_copy import KEPT_BEFORE, LocalCopy, Seen
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
        self._channels: dict[str, dict[str, Seen]] = {}
        self._rollbacks: dict[str, list[Waiting]] = {}
        self._rollbacks_lock = threading.Lock()
        self._seen: dict[str, int | None] = {}
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="channel-watch", daemon=True)
        self.away_since: datetime | None = None
        """Since when the lakehouse cannot be read; None while it can."""
        self._disk_problem: str | None = None
        self._unread: str | None = None

    def start(self) -> None:
        """Take what is on local disk and begin to ask the lakehouse; returns after the first look, if that comes soon."""
        for assistant in LocalCopy.assistants(self._settings.gateway):
            self._channels[assistant] = self._copy(assistant).channels()
        self._read_rollbacks()
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
        """Channel → release id: what the history says, and over it the rollbacks that it lacks yet."""
        channels = {name: seen.release_id for name, seen in self._channels.get(assistant, {}).items()}
        for move in self._rollbacks.get(assistant, ()):
            channels[move.channel] = move.release_id
            if move.channel == "prod":
                channels.pop(CANARY, None)
        return channels

    def experiment(self, assistant: str) -> Experiment | None:
        """The experiment that the canary is in now."""
        canary = self._channels.get(assistant, {}).get(CANARY)
        if canary is None or canary.experiment is None or canary.plan is None or CANARY not in self.channels(assistant):
            return None
        return Experiment(canary.experiment, canary.release_id, Plan.from_dict(canary.plan))

    def rollbacks(self) -> dict[str, list[Waiting]]:
        """Assistant → the rollbacks that hold here and are not known to be in the history, oldest first."""
        return {assistant: list(waiting) for assistant, waiting in self._rollbacks.items() if waiting}

    def before(self, assistant: str, channel: str) -> str | None:
        """The release that a rollback of the channel goes to; None if there is none, or none that is known."""
        seen = self._channels.get(assistant, {}).get(channel)
        stack = _stack(seen, channel, self._rollbacks.get(assistant, ())) if seen else ()
        return stack[-2] if len(stack) > 1 else None

    def roll_back(self, assistant: str, channel: str, to: str | None, *, author: str, reason: str) -> str:
        """Have the channel go back on this gateway, at once and also after a restart; the release that it points to now.

        The history gets it as soon as the lakehouse can be reached. `to`: id, number or beginning of an id (8 characters or
        more) of a release that the channel had before; None is the one before. Raises `NotFoundError` or
        `InvalidRequestError` if there is none, or none in the local copy.
        """
        copy = self._copy(assistant)
        seen = self._channels.get(assistant, {}).get(channel)
        if seen is None:
            raise NotFoundError(f"{assistant} has no release on {channel}, so there is nothing to go back from.")
        if seen.event_id is None:
            raise NotFoundError(
                f"{assistant}: this gateway has not read the history of {channel} since it was upgraded, so it does not know"
                " what was there before. It reads it as soon as the lakehouse is back."
            )
        head = Pointer(seen.release_id, seen.event_id, datetime.now(UTC))

        def decide(waiting: list[Waiting]) -> list[Waiting]:
            stack, previous = _stack(seen, channel, waiting), head
            for move in waiting:
                if move.channel == channel:
                    previous = Pointer(move.release_id, move.event_id, move.at)
            release_id = _wanted(assistant, channel, stack, [copy.bundle(release_id) for release_id in stack], to)
            if release_id == previous.release_id:
                return waiting
            return [*waiting, Waiting.now(channel, release_id, previous, author=author, reason=reason)]

        try:
            with self._rollbacks_lock:
                self._rollbacks[assistant] = copy.change_rollbacks(decide)
        except OSError as error:
            raise RetryableError(
                f"{assistant}: a rollback cannot be kept in {self._settings.gateway}, and would be lost at a restart:"
                f" {error.strerror or error}. Make room there."
            ) from error
        self._changed()
        return self.channels(assistant)[channel]

    def fetch(self, assistant: str, reference: str) -> dict[str, object]:
        """A release's bundle, from local disk or from the lakehouse; raises `NotFoundError`."""
        copy = self._copy(assistant)
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

    def _copy(self, assistant: str) -> LocalCopy:
        return LocalCopy(self._settings.gateway, assistant)

    def _read_rollbacks(self) -> None:
        """Take up what is kept on disk, also by other gateways of this home."""
        for assistant in self.assistants():
            try:
                with self._rollbacks_lock:
                    self._rollbacks[assistant] = self._copy(assistant).rollbacks()
            except (
                OSError,
                PermanentError,
            ) as error:  # those in memory hold on, and the channels are followed all the same
                if str(error) != self._unread:
                    log.error("%s: %s", assistant, error)
                self._unread = str(error)

    def _ask(self) -> None:
        self._read_rollbacks()
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
        waiting = self._rollbacks.get(assistant)
        if snapshot is None or (self._seen.get(assistant) == snapshot and not waiting):
            return
        releases = Releases(lakehouse, assistant)
        events = releases.channels.events(snapshot)
        channels = {
            name: Seen(
                pointer.release_id,
                pointer.event_id,
                past(events, name).stack[-1 - KEPT_BEFORE : -1],
                pointer.experiment,
                pointer.plan,
            )
            for name, pointer in fold(events).items()
        }
        copy = self._copy(assistant)
        kept = True
        for release_id in {release_id for seen in channels.values() for release_id in (seen.release_id, *seen.before)}:
            try:
                self.fetch(assistant, release_id)
                kept = kept and copy.bundle(release_id) is not None
            except LlmopsError as error:
                log.error("%s: release %s cannot be fetched: %s", assistant, release_id, error)
        self._channels[assistant] = channels
        # What is not on local disk is tried again.
        if self._keep(lambda: copy.save_channels(channels)) and kept:
            self._seen[assistant] = snapshot
        if waiting:
            self._settle(lakehouse, assistant, events, waiting)

    def _settle(self, lakehouse: Lakehouse, assistant: str, events: pl.DataFrame, waiting: list[Waiting]) -> None:
        """Let go of the rollbacks that the history has or has overtaken, and write the others to it; see `outcome`."""
        found = outcome(events, waiting)
        for move in waiting:
            said = (assistant, move.channel, move.release_id, move.author)
            if found[move.event_id] == "recorded":
                log.info("%s: the rollback of %s to release %s by %s is in the history", *said)
            elif found[move.event_id] == "overtaken":
                now = self._channels[assistant].get(move.channel)
                log.warning(
                    "%s: the rollback of %s to release %s by %s has ended: somebody moved the channel meanwhile, to %s, and the"
                    " history wins",
                    *said,
                    now.release_id if now else "nothing",
                )
        settled = {event_id for event_id, said in found.items() if said != "waiting"}

        def forget() -> None:
            with self._rollbacks_lock:
                self._rollbacks[assistant] = self._copy(assistant).change_rollbacks(
                    lambda kept: [move for move in kept if move.event_id not in settled]
                )

        if not self._keep(forget):
            return
        for move in self._rollbacks[assistant]:
            try:
                record(lakehouse, assistant, move)
            except ConflictError as error:  # the next look tells who was first
                log.warning("%s: the rollback of %s is not in the history yet: %s", assistant, move.channel, error)
                return

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


def _stack(seen: Seen, channel: str, waiting: Sequence[Waiting]) -> Sequence[str]:
    """The releases of a channel (see rollback.py) with the rollbacks that the history lacks yet."""
    stack: Sequence[str] = [*seen.before, seen.release_id]
    for move in waiting:
        if move.channel == channel:
            stack = gone_back(stack, move.release_id)
    return stack


def _wanted(
    assistant: str, channel: str, stack: Sequence[str], bundles: Sequence[Mapping[str, Any] | None], to: str | None
) -> str:
    """The release to go back to, by what is on local disk of those on the stack; raises `NotFoundError`."""
    here = {release_id: found["number"] for release_id, found in zip(stack, bundles, strict=True) if found}
    named = [
        release_id
        for release_id, number in here.items()
        if to and (str(number) == to or (len(to) >= 8 and release_id.startswith(to)))
    ]
    try:
        found = target(stack, named[0] if named else to, channel)
    except InvalidRequestError as error:
        raise _not_here(assistant, channel, here, str(to)) from error
    if found not in here:
        raise _not_here(assistant, channel, here, found)
    return found


def _not_here(assistant: str, channel: str, here: Mapping[str, Any], wanted: str) -> NotFoundError:
    known = ", ".join(f"{number} ({release_id[:8]})" for release_id, number in here.items())
    return NotFoundError(
        f"{assistant}: release {wanted} is not among those that {channel} had before and that this gateway has on disk:"
        f" {known or 'none'}. With the lakehouse there, any can be gone back to: llmops release rollback --to RELEASE"
    )
