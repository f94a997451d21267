"""What a catalog that is locked or damaged says, and that it says so soon."""

from collections.abc import Callable

import polars as pl
import pytest

from llmops_core.errors import LakehouseError
from llmops_core.lakehouse import catalog as module
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import LakeTable, Provenance
from llmops_core.settings import Settings
from tests.locked_catalog import locked_catalog

RUN = Provenance("test")
LOCKED = r"database is locked\. Another process holds .* try again"


def prompt(table: LakeTable) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(table.spec.frame_schema.names())], schema=table.spec.frame_schema)


def test_a_locked_catalog_is_reported_and_opens_when_it_is_let_go(
    settings: Settings, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SQLITE_TIMEOUT_S", 0.1)
    with locked_catalog(settings), pytest.raises(LakehouseError, match=f"'llmops' cannot be opened: {LOCKED}"):
        Lakehouse.open(settings)
    Lakehouse.open(settings)


@pytest.mark.parametrize(
    "use",
    [
        lambda lakehouse, table: table.load(),
        lambda lakehouse, table: table.read(),
        lambda lakehouse, table: table.append(prompt(table), RUN),
        lambda lakehouse, table: lakehouse.assistants(),
        lambda lakehouse, table: lakehouse.prepare("helper"),
        lambda lakehouse, table: lakehouse.prepare("another"),
    ],
    ids=["load", "read", "append", "assistants", "prepare", "prepare anew"],
)
def test_a_catalog_that_is_locked_later_is_told_by_whatever_uses_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, use: Callable[[Lakehouse, LakeTable], object]
) -> None:
    monkeypatch.setattr(module, "SQLITE_TIMEOUT_S", 0.1)
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare("helper")
    with locked_catalog(settings), pytest.raises(LakehouseError, match=LOCKED):
        use(lakehouse, lakehouse.table("helper", "prompts_versions"))
    use(lakehouse, lakehouse.table("helper", "prompts_versions"))


def test_a_commit_into_a_catalog_that_can_only_be_read_is_told_and_writes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SQLITE_TIMEOUT_S", 0.1)
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare("helper")
    table = lakehouse.table("helper", "prompts_versions")
    with locked_catalog(settings, "IMMEDIATE"):
        with pytest.raises(LakehouseError, match=f"helper.prompts_versions cannot be used: {LOCKED}"):
            table.append(prompt(table), RUN)
        assert table.read().is_empty()
    table.append(prompt(table), RUN)
    assert table.read().height == 1


def test_a_database_that_is_none_is_named_with_the_setting_that_names_it(settings: Settings) -> None:
    settings.lakehouse.mkdir(parents=True)
    (settings.lakehouse / "catalog.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LakehouseError, match=r"file is not a database.*LLMOPS_HOME"):
        Lakehouse.open(settings)
