"""`llmops index …`."""

from datetime import datetime
from typing import Any

import click

from llmops_cli.context import RELEASE, Moment, assistant_option, json_option, reports_errors
from llmops_cli.gateway_process import PROD
from llmops_cli.output import doing, emit, facts
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_core.vectors.past import PastIndex, index_as_of, index_of_release

AS_OF = "The moment, ISO 8601 with zone: the index of the release that prod pointed to then, or the channel --release names."


@click.group()
def command() -> None:
    """Versions of the vector index."""


@command.command()
@click.option("--as-of", type=Moment(), help=AS_OF)
@click.option("--release", metavar="RELEASE", help=f"Whose index: {RELEASE}. With --as-of, a channel.")
@assistant_option
@json_option
@reports_errors
def rebuild(assistant: Any, as_of: datetime | None, release: str | None, as_json: bool) -> None:
    """Have LanceDB hold the index of a past moment or of a release; what is not there is made anew from Iceberg.

    It gives the chunks and scores that it gave then. A moment that is no longer retained is refused, with the nearest that is.
    """
    if as_of is None and release is None:
        raise click.UsageError("Say which index: --as-of TIME, or --release RELEASE.")
    found = past_index(load_settings(), assistant().name, release, as_of)
    pin = found.release.manifest.index
    value = {
        "index_version": pin.version,
        "as_of": as_of.isoformat() if as_of else None,
        "snapshots": pin.snapshots,
        "release_id": found.release.release_id,
        "release": found.release.number,
        "embedder_revision": found.release.manifest.embedder.revision,
        "made_anew": found.made,
    }
    state = "made anew from the lakehouse" if found.made else "there already"
    snapshots = ", ".join(f"{table} {snapshot}" for table, snapshot in pin.snapshots.items())
    shown = {"index version": f"{pin.version}, {state}", "release": f"{found.release.number} ({value['release_id']})"}
    emit(value, facts({**shown, "snapshots": snapshots}), as_json=as_json)


def past_index(settings: Settings, assistant: str, release: str | None, as_of: datetime | None) -> PastIndex:
    """The index of a release, or of the one that a channel (by default prod) pointed to at a moment, there to be searched."""
    lakehouse = Lakehouse.open(settings)
    with doing(f"Looking for the index in {settings.lancedb} and the lakehouse"):
        if as_of is not None:
            return index_as_of(lakehouse, settings, assistant, release or PROD, as_of)
        return index_of_release(lakehouse, settings, Releases(lakehouse, assistant).get(str(release)))
