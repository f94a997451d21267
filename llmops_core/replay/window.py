"""Replays what was asked in a span of time, and says how much of it came out the same: the work behind `traffic/replays`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from llmops_core.errors import InvalidRequestError
from llmops_core.ids import content_hash
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.release.manifest import Release
from llmops_core.replay.compare import PARTS
from llmops_core.replay.request import Replayer
from llmops_core.times import parse_time
from llmops_core.traffic.columns import request_rows
from llmops_core.traffic.row import RequestRow

# Rows of the log that are in memory together.
ROWS_PER_READ = 500
# Requests that differ, as many as the report names.
SHOWN = 20
COMPARED = (*PARTS, "query_vector")
_SCHEMA = {
    "request_id": pl.String,
    "logged_release_id": pl.String,
    "release_id": pl.String,
    **dict.fromkeys((*COMPARED, "promised"), pl.Boolean),
    "differences": pl.String,
    "answered": pl.String,
    "error": pl.String,
}

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Window:
    """The requests from a moment on (`since`) and before another (`until`)."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise InvalidRequestError(
                f"The window from {self.since.isoformat()} to {self.until.isoformat()} is empty: it has to end after it begins."
            )


def window_of(since: str | None, until: str | None) -> Window:
    """The window between two texts in ISO 8601 with zone; by default until now, and since a day before."""
    end = parse_time(until) if until else datetime.now(UTC)
    return Window(parse_time(since) if since else end - timedelta(days=1), end)


def replay_window(
    replayer: Replayer,
    log: LakeTable,
    snapshot: int | None,
    window: Window,
    *,
    release: str | None,
    answers: int,
    progress: Progress,
) -> pl.DataFrame:
    """Run the requests of a window again; a row each, of `traffic_replays` but for its time.

    As many as `answers` are answered, the others come as far as the prompt. Which ones follows from the hashes of their ids, so
    the same window has the same ones, spread over all of it. What cannot be run again has an `error`, and the others go on.
    """
    wanted = _wanted(log, snapshot, window)
    chosen = set(sorted(wanted["request_id"], key=content_hash)[:answers])
    rows: list[dict[str, Any]] = []
    for row in _rows(log, snapshot, wanted["request_id"].to_list()):
        rows.append(_replayed(replayer, row, release, answer=row.request_id in chosen))
        if len(rows) % 50 == 0:
            progress(f"Replayed {len(rows)} of {wanted.height} requests")
    return pl.DataFrame(rows, schema=_SCHEMA)


def _wanted(log: LakeTable, snapshot: int | None, window: Window) -> pl.DataFrame:
    """The requests in the order of their releases, so that one release is in use at a time."""
    within = (pl.col("started_at") >= window.since) & (pl.col("started_at") < window.until)
    ids = log.scan(snapshot).filter(within).select("request_id", "release_id", "generator_revision", "started_at")
    return ids.sort("generator_revision", "release_id", "started_at", "request_id").collect()


def _rows(log: LakeTable, snapshot: int | None, request_ids: Sequence[str]) -> Iterator[RequestRow]:
    for start in range(0, len(request_ids), ROWS_PER_READ):
        some = request_ids[start : start + ROWS_PER_READ]
        found = request_rows(log.scan(snapshot).filter(pl.col("request_id").is_in(some)).collect())
        by_id = {row.request_id: row for row in found}
        yield from (by_id[request_id] for request_id in some)


def _replayed(replayer: Replayer, row: RequestRow, release: str | None, *, answer: bool) -> dict[str, Any]:
    ids = {"request_id": row.request_id, "logged_release_id": row.release_id}
    try:
        done = replayer.replay(row, release, answer=answer)
    except Exception as error:  # whatever one request brings about must not cost the others theirs
        return {**dict.fromkeys(_SCHEMA), **ids, "error": f"{type(error).__name__}: {error}"}
    differences = [asdict(difference) for difference in done.comparison.differences]
    return {
        **ids,
        "release_id": done.release_id,
        **done.comparison.identical,
        "query_vector": done.query_vector.reproduced if done.query_vector else None,
        "promised": bool(done.promised.get("answer")),
        "differences": json.dumps(differences, ensure_ascii=False),
        "answered": done.now.answer,
        "error": None,
    }


def store_replays(table: LakeTable, rows: pl.DataFrame, provenance: Provenance) -> int | None:
    """Append to `traffic_replays`; returns the snapshot."""
    return table.append(rows.with_columns(replayed_at=pl.lit(datetime.now(UTC))), provenance)


@dataclass(frozen=True)
class Share:
    """Of so many that were compared, so many came out the same."""

    identical: int
    compared: int

    def __str__(self) -> str:
        return f"{self.identical} of {self.compared}"


@dataclass(frozen=True)
class Summary:
    """A window that was replayed."""

    window: Window
    requests: int
    failed: int
    """Those that could not be run again."""
    releases: Mapping[str, Mapping[str, Share]]
    """By release that answered then (its number and id) → part → share."""
    total: Mapping[str, Share]
    differing: tuple[Mapping[str, str], ...]
    """`request_id`, `part` where it entered, `difference`; the first few."""
    number_differing: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON value."""
        return {
            "since": self.window.since.isoformat(),
            "until": self.window.until.isoformat(),
            "requests": self.requests,
            "failed": self.failed,
            "identical": {part: share.identical for part, share in self.total.items()},
            "compared": {part: share.compared for part, share in self.total.items()},
            "releases": {
                name: {part: asdict(share) for part, share in parts.items()} for name, parts in self.releases.items()
            },
            "differing": list(self.differing),
            "number_differing": self.number_differing,
        }

    def markdown(self) -> str:
        """For the UI and the terminal."""
        lines = [
            f"Requests from {self.window.since.isoformat()} to {self.window.until.isoformat()}, run again. Identical:",
            "",
            f"| answered by | {' | '.join(part.replace('_', ' ') for part in COMPARED)} |",
            "|---" * (len(COMPARED) + 1) + "|",
        ]
        for name, parts in {**self.releases, f"all {self.requests} requests": self.total}.items():
            lines.append(f"| {name} | {' | '.join(str(parts[part]) for part in COMPARED)} |")
        if self.failed:
            lines += ["", f"{self.failed} of them could not be run again (column `error` of table `traffic_replays`)."]
        if self.differing:
            lines += ["", f"Where a difference entered, {len(self.differing)} of {self.number_differing} requests:", ""]
            lines += [f"- {found['request_id']}, {found['part']}: {found['difference']}" for found in self.differing]
        return "\n".join(lines)


def summarise(window: Window, rows: pl.DataFrame, releases: Sequence[Release]) -> Summary:
    """Count what `replay_window` gave."""
    numbers = {release.release_id: release.number for release in releases}
    run = rows.filter(pl.col("error").is_null())
    shares: dict[str, dict[str, Share]] = {}
    by_release = sorted(run.group_by("logged_release_id"), key=lambda group: numbers.get(str(group[0][0]), 0))
    for (release_id,), of_release in by_release:
        name = f"release {numbers.get(str(release_id), '?')} ({release_id})" if release_id else "no release"
        shares[name] = _shares(of_release)
    differing = run.filter(pl.col("differences") != "[]")
    shown = [
        {"request_id": str(request_id), **json.loads(differences)[0]}
        for request_id, differences in differing.select("request_id", "differences").head(SHOWN).iter_rows()
    ]
    return Summary(window, rows.height, rows.height - run.height, shares, _shares(run), tuple(shown), differing.height)


def _shares(rows: pl.DataFrame) -> dict[str, Share]:
    return {part: Share(int(rows[part].sum() or 0), rows[part].count()) for part in COMPARED}
