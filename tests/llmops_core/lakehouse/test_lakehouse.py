"""Assistants beside each other and beside strangers, and tables made by several processes at once."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from llmops_core.lakehouse import lakehouse as module
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.schemas import TABLES
from llmops_core.settings import Settings


def test_namespaces_of_others_in_the_same_catalog_are_no_assistants(lakehouse: Lakehouse) -> None:
    lakehouse.catalog.create_namespace("finance")
    lakehouse.catalog.create_table(
        "finance.invoices", schema=lakehouse.table("helper", "release_events").load().schema()
    )
    assert lakehouse.assistants() == ["helper"]


def prepare_at_once(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Lakehouse.open(settings).prepare("helper"), range(4)))


def test_several_processes_may_make_the_tables_at_once(settings: Settings) -> None:
    prepare_at_once(settings)
    lakehouse = Lakehouse.open(settings)
    assert {name for _, name in lakehouse.catalog.list_tables("helper")} == set(TABLES)


def test_several_processes_may_add_columns_at_once(
    lakehouse: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {
        name: dataclasses.replace(spec, columns={**spec.columns, "more": (pl.String, "More")})
        for name, spec in TABLES.items()
    }
    monkeypatch.setattr(module, "TABLES", newer)
    prepare_at_once(settings)
    assert all(lakehouse.table("helper", name).read().columns[-1] == "more" for name in newer)
