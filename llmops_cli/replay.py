"""`llmops replay`."""

from datetime import datetime
from typing import Any

import click

from llmops_cli.context import RELEASE, Moment, assistant_option, json_option, reports_errors
from llmops_cli.output import doing, emit, table
from llmops_cli.runs import run_job
from llmops_core.assistant import Assistant
from llmops_core.engines.pool import EnginePool
from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.replay.compare import PARTS, Outcome
from llmops_core.replay.request import Replay, Replayer
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.find import Sought
from llmops_core.traffic.row import RequestRow

SAME = {True: "identical", False: "different", None: "not compared"}


@click.command()
@click.argument("request_id", required=False)
@click.option("--since", type=Moment(), help="Instead of one request, those from this moment on (ISO 8601 with zone).")
@click.option("--until", type=Moment(), help="Those before this moment; by default until now.")
@click.option("--release", metavar="RELEASE", help=f"What another release says to it: {RELEASE}.")
@click.option(
    "--answers",
    default=20,
    show_default=True,
    type=click.IntRange(0),
    help="Of a span of time, how many requests are answered again; the others come as far as the prompt.",
)
@assistant_option
@json_option
@reports_errors
def command(
    assistant: Any,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
    release: str | None,
    answers: int,
    as_json: bool,
) -> None:
    """Run a logged request again, on exactly what it ran on, and say whether all of it comes out the same.

    With --since, all requests of a span of time: a run of job traffic_replay, whose rows are in table traffic_replays.
    """
    if (request_id is None) == (since is None) or (until and not since):
        raise click.UsageError("Name a request, or a span of time with --since (and --until).")
    settings, chosen = load_settings(), assistant()
    if since:
        value, text = _window(settings, chosen, since, until, release, answers)
    else:
        with doing(f"Running {request_id} again"):
            done = _replay(settings, chosen.name, str(request_id), release)
        value, text = done.to_dict(), _shown(done)
    emit(value, text, as_json=as_json)


def find_row(settings: Settings, assistant: str, request_id: str) -> RequestRow:
    """A logged request of the assistant, wherever its row is; raises `NotFoundError`."""
    sought = Sought(request_id)
    found = sought.on_disk(settings.spool) or sought.in_lakehouse(Lakehouse.open(settings), [assistant])
    if found["assistant"] != assistant:
        raise NotFoundError(
            f"Request {request_id} was answered by {found['assistant']}: --assistant {found['assistant']}."
        )
    return RequestRow.from_payload(found)


def _replay(settings: Settings, assistant: str, request_id: str, release: str | None) -> Replay:
    row = find_row(settings, assistant, request_id)
    with EnginePool(settings) as engines:
        return Replayer(Lakehouse.open(settings), settings, assistant, engines).replay(row, release)


def _window(
    settings: Settings,
    assistant: Assistant,
    since: datetime,
    until: datetime | None,
    release: str | None,
    answers: int,
) -> tuple[Any, str]:
    config = {"since": since.isoformat(), "until": until and until.isoformat(), "release": release, "answers": answers}
    given = {name: value for name, value in config.items() if value is not None}
    ops = {"ops": {f"{assistant.name}__traffic__replays": {"config": given}}}
    done = run_job(settings, assistant, "traffic_replay", config=ops).assets["traffic/replays"]
    return done["result"], str(done["report"])


def _shown(done: Replay) -> str:
    """The parts, what differs, and both answers where they do or another release was asked."""
    told = {found.part: found.difference for found in done.comparison.differences}
    rows = [(part, SAME[done.comparison.identical[part]], told.get(part, "")) for part in PARTS]
    if done.query_vector:
        again = done.query_vector
        how = "" if again.reproduced else f"largest difference of a number: {again.largest_difference}"
        rows.append(("query vector, embedded again", SAME[again.reproduced], how))
    on = "its own release" if done.release_id == done.logged_release_id else "release"
    made = ", made anew from the lakehouse" if done.index_made else ""
    lines = [f"Request {done.request_id} on {on} {done.release_id}, index version {done.index_version}{made}", ""]
    lines.append(table(("part", "then and now", "difference"), rows))
    if not done.promised.get("answer"):
        lines.append(f"\nThe engine did not promise the same answer again: {done.promised.get('reason')}.")
    if done.release_id != done.logged_release_id or not done.comparison.identical["answer"]:
        lines.append(f"\nThen: {_said(done.then)}\n\nNow:  {_said(done.now)}")
    return "\n".join(lines)


def _said(outcome: Outcome) -> str:
    return outcome.answer if outcome.answer is not None else outcome.error or "(no answer)"
