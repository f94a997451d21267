"""`llmops dataset …`."""

import json
from typing import Any

import click
import polars as pl

from llmops_cli.context import assistant_option, json_option, reports_errors
from llmops_cli.output import emit, short, table
from llmops_core.lakehouse.dataset import TableSnapshot, diff, rows_at, snapshots
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.lakehouse.table import LakeTable
from llmops_core.settings import load_settings

CELL_CHARACTERS = 40
SHOWN = 20
MOMENT = "a snapshot id (see `dataset list TABLE`), or a time (ISO 8601 with zone)"


@click.group()
def command() -> None:
    """The assistant's tables: snapshots, rows and differences."""


@command.command("list")
@click.argument("name", required=False, metavar="[TABLE]")
@assistant_option
@json_option
@reports_errors
def list_tables(assistant: Any, name: str | None, as_json: bool) -> None:
    """List the tables with their newest snapshots, or all snapshots of a TABLE: time, rows in all, and who wrote it."""
    lakehouse, chosen = Lakehouse.open(load_settings()), assistant().name
    found = {each: snapshots(lakehouse.table(chosen, each)) for each in ([name] if name else TABLES)}
    value = [{"table": each, "snapshots": [one.to_dict() for one in known]} for each, known in found.items()]
    shown = [
        (each, *_cells(one), len(known))
        for each, known in found.items()
        for one in (known if name else [next(iter(known), None)])
    ]
    head = ("table", "snapshot", "written", "rows", "by", "what", "snapshots")
    emit(value, table(head, shown), as_json=as_json)


@command.command(help=f"Show rows of a TABLE, now or at a moment: {MOMENT}.")
@click.argument("name", metavar="TABLE")
@click.option("--at", metavar="MOMENT", help="The moment.")
@click.option("--limit", default=SHOWN, show_default=True, type=click.IntRange(1), help="How many rows.")
@assistant_option
@json_option
@reports_errors
def show(assistant: Any, name: str, at: str | None, limit: int, as_json: bool) -> None:
    """Print the first rows, and how many there are."""
    rows = rows_at(_table(assistant, name), at)
    count = rows.select(pl.len()).collect().item()
    some = rows.head(limit).collect()
    value = {"table": name, "at": at, "count": count, "rows": _json(some)}
    emit(value, f"{_rows(some)}\n\n{some.height} of {count} rows", as_json=as_json)


@command.command("diff", help=f"Compare the rows of a TABLE at two moments, each {MOMENT}.")
@click.argument("name", metavar="TABLE")
@click.argument("before")
@click.argument("after", required=False)
@assistant_option
@json_option
@reports_errors
def compare(assistant: Any, name: str, before: str, after: str | None, as_json: bool) -> None:
    """Print the rows that came, went and changed from BEFORE to AFTER, by default to now."""
    found = diff(_table(assistant, name), before, after)
    keys = {"added": found.added.select(found.key), "removed": found.removed.select(found.key)}
    value = {
        "table": name,
        "key": list(found.key),
        **{kind: _json(frame) for kind, frame in keys.items()},
        "changed": _json(found.changed),
    }
    parts = [
        f"{kind}: {frame.height}" + (f"\n{_rows(frame.head(SHOWN))}\n" if frame.height else "")
        for kind, frame in {**keys, "changed": found.changed}.items()
    ]
    emit(value, "\n".join(parts), as_json=as_json)


def _table(assistant: Any, name: str) -> LakeTable:
    return Lakehouse.open(load_settings()).table(assistant().name, name)


def _cells(one: TableSnapshot | None) -> tuple[Any, ...]:
    if one is None:
        return "–", "never", 0, "", ""
    return one.snapshot, one.at.isoformat(timespec="seconds"), one.rows, one.run_id or "", one.operation


def _json(frame: pl.DataFrame) -> Any:
    """The rows as JSON values; times in ISO 8601."""
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    rows = frame.to_dicts()
    for row in rows:
        row.update({name: row[name].isoformat() for name in times if row[name] is not None})
    return rows


def _rows(frame: pl.DataFrame) -> str:
    cells = [[short(_cell(value), CELL_CHARACTERS) for value in row.values()] for row in _json(frame)]
    return table(frame.columns, cells)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
