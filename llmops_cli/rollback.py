"""`llmops release rollback`."""

import threading
from concurrent.futures import Future
from typing import Any

import click
import httpx

from llmops_cli.context import RELEASE, assistant_option, json_option, reports_errors
from llmops_cli.gateway_process import gateway_state
from llmops_cli.output import emit, progress, url_of
from llmops_cli.release_moves import author
from llmops_core.errors import LakehouseError, NotFoundError, RetryableError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.release import rollback
from llmops_core.release.channels import CHANNELS
from llmops_core.release.diff import changes
from llmops_core.settings import Settings, load_settings

# In an emergency a lakehouse that hangs is as bad as one that is away.
WAIT_S = 10.0
TIMEOUT_S = 30.0


@click.command("rollback")
@click.option("--channel", type=click.Choice(CHANNELS), default="prod", show_default=True, help="What goes back.")
@click.option(
    "--to", metavar="RELEASE", help=f"A release that the channel had before: {RELEASE}. Default: the one before."
)
@click.option("--message", required=True, help="Why; it is kept with the event.")
@assistant_option
@json_option
@reports_errors
def command(assistant: Any, channel: str, to: str | None, message: str, as_json: bool) -> None:
    """Point a channel to the release that it had before. Gateways follow within seconds.

    A second rollback goes further back. With the lakehouse away this machine's gateway goes back by itself, and writes it to
    the history when it can.
    """
    settings, name, who = load_settings(), assistant().name, author()
    attempt = Attempt(settings, name, channel, to, author=who, reason=message)
    try:
        decided = attempt.wait(WAIT_S)
    except LakehouseError as error:
        progress.print(f"{error}\nSo the gateway is asked to go back by itself.")
        body = {"assistant": name, "channel": channel, "to": attempt.to, "author": who, "reason": message}
        done = {**_ask_gateway(settings, body, error), "recorded": False, "changed": []}
        said = f"{channel} → release {done['number']} ({done['release_id']}) on this machine's gateway."
        emit(done, f"{said} The history gets it when the lakehouse is back.", as_json=as_json)
        return
    now, left = decided.release, decided.left
    changed = changes(left.manifest, now.manifest)
    done = {"assistant": name, "channel": channel, "release_id": now.release_id, "number": now.number}
    said = f"{channel} → release {now.number} ({now.release_id}), back from release {left.number}"
    if changed == ["index"]:
        said += ", which differs in its documents alone. Further back: the same command again, or with --to RELEASE"
    emit({**done, "left": left.release_id, "recorded": True, "changed": changed}, said, as_json=as_json)


class Attempt:
    """A rollback in the history, in a thread that is not waited for longer than an emergency allows.

    `to` is what the gateway has to be asked for instead: as it was given, until the release is decided on. From then on it is
    that release, since nobody knows whether the write came through and the gateway must not go one further back.
    """

    def __init__(
        self, settings: Settings, assistant: str, channel: str, to: str | None, *, author: str, reason: str
    ) -> None:
        self.to = to
        self._given_up = False
        self._lock = threading.Lock()
        self._done: Future[rollback.Rollback] = Future()

        def roll_back() -> rollback.Rollback:
            lakehouse = Lakehouse.open(settings)
            decided = rollback.decide(lakehouse, settings, assistant, channel, to)
            with self._lock:
                if self._given_up:
                    return decided
                self.to = decided.release.release_id
            provenance = Provenance(f"llmops release rollback by {author}")
            rollback.apply(lakehouse, assistant, decided, author=author, reason=reason, provenance=provenance)
            return decided

        def run() -> None:
            try:
                self._done.set_result(roll_back())
            except Exception as error:  # raised where it is waited for
                self._done.set_exception(error)

        # The program must end while this hangs in a connection.
        threading.Thread(target=run, name="rollback", daemon=True).start()

    def wait(self, seconds: float) -> rollback.Rollback:
        """What was done; raises `LakehouseError` if it takes longer, and then nothing new begins."""
        try:
            return self._done.result(seconds)
        except TimeoutError as error:
            with self._lock:
                self._given_up = True
            raise LakehouseError(f"The lakehouse does not answer within {seconds:.0f} s.") from error


def _ask_gateway(settings: Settings, body: dict[str, Any], away: LakehouseError) -> dict[str, Any]:
    """What this home's gateway says to a rollback; raises the error that it has with it."""
    url = url_of(settings.host, settings.port)
    if gateway_state(url, settings, body["assistant"]) is None:
        raise LakehouseError(
            f"{away} No gateway of this home answers on {url} either, so nothing was rolled back. Where one serves, it can be"
            " told: POST /admin/rollback"
        ) from away
    try:
        # Without the environment: a proxy that is set there does not reach this machine's loopback.
        reply = httpx.post(f"{url}/admin/rollback", json=body, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        raise RetryableError(
            f"The gateway on {url} did not answer: {error}. What it does is shown by /readyz"
        ) from error
    if reply.is_error:
        kind = NotFoundError if reply.status_code < 500 else RetryableError
        raise kind(str(reply.json()["error"]["message"]))
    return dict(reply.json())
