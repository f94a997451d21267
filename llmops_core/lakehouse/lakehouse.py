"""The lakehouse of all assistants: one Iceberg namespace each, with the tables of schemas.py."""

from contextlib import suppress
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.table import Table as IcebergTable

from llmops_core.errors import ConflictError, LakehouseError, NotFoundError
from llmops_core.lakehouse.catalog import open_catalog
from llmops_core.lakehouse.catalog_errors import mapped_errors
from llmops_core.lakehouse.schemas import TABLES, TableSpec
from llmops_core.lakehouse.table import LakeTable
from llmops_core.settings import Settings

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Every table. Metadata files pile up with commits otherwise, and so do manifests, of which each append reads the list.
PROPERTIES = {
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "16",
    "write.parquet.compression-codec": "zstd",
}

# The table that makes a namespace an assistant's.
OURS = "release_events"

# Of processes that change the same table at once, one wins each time.
ATTEMPTS = 20


class Lakehouse:
    """Opens tables by assistant and name; `prepare` makes and evolves them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @classmethod
    def open(cls, settings: Settings) -> "Lakehouse":
        """Open the lakehouse that the settings name."""
        return cls(open_catalog(settings))

    def table(self, assistant: str, name: str) -> LakeTable:
        """Name a table of an assistant; it need not exist yet."""
        spec = TABLES.get(name)
        if spec is None:
            raise NotFoundError(f"There is no table {name!r}. Tables are: {', '.join(TABLES)}")
        return LakeTable(self.catalog, assistant, spec)

    def prepare(self, assistant: str, *, dry_run: bool = False) -> list[str]:
        """Make the namespace and what is missing in it; add columns that the code has and a table has not.

        Returns what was changed, in words (`dry_run`: what would be); safe to call at any time, by several processes at once.
        """
        with mapped_errors(f"Iceberg catalog {self.catalog.name!r}"):
            if not dry_run:
                self._create_namespace(assistant)
            return [
                change
                for spec in TABLES.values()
                for change in self._prepare(f"{assistant}.{spec.name}", spec, dry_run=dry_run)
            ]

    def assistants(self) -> list[str]:
        """The assistants that have tables here; namespaces of others, in a catalog that is shared, are none."""
        with mapped_errors(f"Iceberg catalog {self.catalog.name!r}"):
            return sorted(
                namespace[0]
                for namespace in self.catalog.list_namespaces()
                if (*namespace, OURS) in self.catalog.list_tables(namespace)
            )

    def spool(self) -> tuple["FileSystem", str]:
        """Where gateways put their sealed spool segments: a filesystem and a folder in it."""
        return self.filesystem(f"{self.warehouse()}/_spool")

    def filesystem(self, uri: str) -> tuple["FileSystem", str]:
        """The filesystem of a place in the warehouse, with the catalog's own credentials, and the path in it."""
        from pyiceberg.io.pyarrow import PyArrowFileIO

        scheme, netloc, path = PyArrowFileIO.parse_location(uri)
        return PyArrowFileIO(self.catalog.properties).fs_by_scheme(scheme, netloc), path

    def warehouse(self) -> str:
        """URI of the storage that holds the tables."""
        given = str(self.catalog.properties.get("warehouse", ""))
        if "://" not in given:
            raise LakehouseError(
                f"Catalog {self.catalog.name!r} has no warehouse that is a URI (it is {given!r}). Set"
                f" PYICEBERG_CATALOG__{self.catalog.name.upper()}__WAREHOUSE, for example to s3://bucket/path"
            )
        return given.rstrip("/")

    def _create_namespace(self, assistant: str) -> None:
        if self.catalog.namespace_exists(assistant):
            return
        try:
            self.catalog.create_namespace(assistant)
        except Exception:  # another process makes it now, for which each catalog has an error of its own
            if not self.catalog.namespace_exists(assistant):
                raise

    def _prepare(self, identifier: str, spec: TableSpec, *, dry_run: bool) -> list[str]:
        for _ in range(ATTEMPTS):
            try:
                with suppress(NoSuchTableError):
                    return _evolve(self.catalog.load_table(identifier), spec, dry_run=dry_run)
                if not dry_run:
                    self._create(identifier, spec)
                return [f"{identifier}: table"]
            except (CommitFailedException, TableAlreadyExistsError):
                # Another process does the same at this moment: look again at what is left to do.
                continue
        raise ConflictError(f"{identifier} is being changed all the time; try again.")

    def _create(self, identifier: str, spec: TableSpec) -> None:
        properties = {**PROPERTIES, "comment": spec.doc, **spec.properties}
        with self.catalog.create_table_transaction(
            identifier, schema=spec.arrow_schema, properties=properties
        ) as transaction:
            if spec.partition_by:
                with transaction.update_spec() as update:
                    update.add_identity(spec.partition_by)


def _evolve(table: IcebergTable, spec: TableSpec, *, dry_run: bool) -> list[str]:
    """Add the columns and properties that the code has and the table has not."""
    present = {field.name for field in table.schema().fields}
    missing = [name for name in spec.arrow_schema.names if name not in present]
    wanted = {k: v for k, v in {**PROPERTIES, **spec.properties}.items() if table.properties.get(k) != v}
    if missing and not dry_run:
        with table.update_schema() as update:
            update.union_by_name(spec.arrow_schema)
    if wanted and not dry_run:
        with table.transaction() as transaction:
            transaction.set_properties(wanted)
    name = ".".join(table.name())
    return [f"{name}: column {column}" for column in missing] + [f"{name}: property {key}" for key in wanted]
