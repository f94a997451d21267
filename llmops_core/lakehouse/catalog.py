"""Opens the Iceberg catalog that the settings name.

PyIceberg has its own configuration (`PYICEBERG_CATALOG__<NAME>__…`, `.pyiceberg.yaml`): if it knows the catalog's name,
that wins, so that PostgreSQL, REST, Glue and Hive need no code here. Otherwise a laptop gets SQLite and a folder.
"""

import sqlite3
from contextlib import closing

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.utils.config import Config

from llmops_core.errors import LakehouseError
from llmops_core.home import open_home
from llmops_core.lakehouse.catalog_errors import explain
from llmops_core.settings import Settings

# Readers and writers of one SQLite file wait for each other this long before they give up.
SQLITE_TIMEOUT_S = 60


def open_catalog(settings: Settings) -> Catalog:
    """Open the catalog; raises `LakehouseError` naming the catalog when that fails, `ConfigError` as `open_home` does."""
    open_home(settings)
    name = settings.catalog
    try:
        if Config().get_catalog_config(name):
            return load_catalog(name)
        settings.lakehouse.mkdir(parents=True, exist_ok=True)
        return _open_sqlite(settings)
    except Exception as error:  # every catalog type raises errors of its own libraries
        raise LakehouseError(
            f"Iceberg catalog {name!r} cannot be opened: {explain(error)} It is set by LLMOPS_HOME ({settings.home}), or by the"
            f" PYICEBERG_CATALOG__{name.upper()}__… variables if it is a remote one."
        ) from error


def _open_sqlite(settings: Settings) -> Catalog:
    from sqlalchemy.exc import OperationalError

    file = settings.lakehouse / "catalog.db"
    if file.exists():
        # PyIceberg takes a locked database for an empty one, and would wait for the lock again to make its tables.
        with closing(sqlite3.connect(file, timeout=SQLITE_TIMEOUT_S)) as connection:
            connection.execute("select count(*) from sqlite_master")

    def opened() -> Catalog:
        return load_catalog(
            settings.catalog,
            type="sql",
            uri=f"sqlite:///{file}?timeout={SQLITE_TIMEOUT_S}",
            warehouse=(settings.lakehouse / "warehouse").as_uri(),
            **{"py-io-impl": "llmops_core.lakehouse.durable_io.DurableFileIO"},
        )

    # Of processes that open it for the first time, each tries to make PyIceberg's own two tables, and a slower one fails
    # once for each that another has made.
    for _ in range(2):
        try:
            return opened()
        except OperationalError as error:
            if "already exists" not in str(error):
                raise
    return opened()
