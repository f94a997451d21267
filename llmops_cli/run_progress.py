"""What a person sees of a run while it goes on: a line for each asset that is made, and what its steps say meanwhile."""

import logging
from collections.abc import Iterator, Mapping

import dagster as dg

from llmops_cli.output import progress

WIDTH = 20
TEXT_CHARACTERS = 60
# Of the metadata, what serves the program.
NOT_SHOWN = ("_snapshot", "_version", "_fingerprint", "_id")


class RunProgress:
    """Listens to the events of one run of an assistant.

    Lines alone: while a step goes on, Dagster has standard error go through a file, where nothing can be drawn over.
    """

    def __init__(self, assistant: str) -> None:
        self._assistant = assistant
        self._begun: set[str] = set()

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Show an entry of the run's log."""
        event = entry.dagster_event
        if event is None:
            # Of steps that do not begin Dagster itself says so, and why the run fails is told at its end.
            if int(entry.level) >= logging.INFO and entry.step_key in {None, *self._begun}:
                progress.print(f"    {entry.user_message}", style="dim")
        elif event.event_type == dg.DagsterEventType.STEP_START and event.step_key:
            self._begun.add(event.step_key)
            progress.print(f"  {self._name(event.step_key)} …", style="dim")
        elif event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            error = event.step_retry_data.error
            message = (error.cause or error).message.strip()
            progress.print(f"    {self._name(str(event.step_key))} is tried again after: {message}", style="yellow")
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            name = "/".join(made.asset_key.path[1:])
            progress.print(f"  {name.ljust(WIDTH)}  {', '.join(facts_of(made.metadata))}")
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                name = "/".join(check.asset_key.path[1:])
                facts = ", ".join(facts_of(check.metadata))
                progress.print(f"    {name} did not pass {check.check_name}: {facts}", style="yellow")

    def _name(self, step: str) -> str:
        return step.removeprefix(f"{self._assistant}__").replace("__", "/")


def facts_of(metadata: Mapping[str, dg.MetadataValue]) -> Iterator[str]:
    """The numbers and short texts of an asset, as people read them: `rows 2`, `new 1`, `kind flat`."""
    for key, found in metadata.items():
        name = "rows" if key == "dagster/row_count" else key
        match found:
            case _ if key.endswith(NOT_SHOWN):
                pass
            case dg.IntMetadataValue(value=int(number)):
                yield f"{name} {number:,}"
            case dg.FloatMetadataValue(value=float(number)):
                yield f"{name} {number:.4g}"
            case dg.BoolMetadataValue(value=True):
                yield name
            case dg.TextMetadataValue(value=str(text)) if len(text) <= TEXT_CHARACTERS:
                yield f"{name} {text}"
