"""A lakehouse with the tables of `helper`, and moments far enough in the future that all is old."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from llmops_core.assistant import Assistant, load_assistant
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.lakehouse.table import Provenance
from llmops_core.maintenance.maintain import maintain
from llmops_core.maintenance.report import Maintained
from llmops_core.settings import Settings

RUN = Provenance("test")


@pytest.fixture
def assistant(tmp_path: Path) -> Assistant:
    folder = tmp_path / "helper"
    folder.mkdir()
    description = {
        "name": "helper",
        "sources": [{"type": "folder", "path": "."}],
        "retention": {"log_days": 2, "index_days": 2},
    }
    (folder / "assistant.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return load_assistant(folder)


@pytest.fixture
def later() -> Callable[[float], datetime]:
    """The moment so many days after the beginning of the test."""
    begin = datetime.now(UTC)
    return lambda days: begin + timedelta(days=days)


@pytest.fixture
def maintained(lakehouse: Lakehouse, settings: Settings, assistant: Assistant) -> Callable[[datetime], Maintained]:
    """Runs maintenance at a moment, with nothing recorded."""
    return lambda now: maintain(lakehouse, settings, assistant, {}, RUN, now=now)


@pytest.fixture
def feedback() -> Callable[..., pl.DataFrame]:
    """Rows of `traffic_feedback`, one for each id."""

    def make(lakehouse: Lakehouse, *ids: str, at: datetime) -> pl.DataFrame:
        schema = lakehouse.table("helper", "traffic_feedback").spec.frame_schema
        rows = [{**dict.fromkeys(schema.names()), "feedback_id": i, "at": at} for i in ids]
        return pl.DataFrame(rows, schema=schema)

    return make


@pytest.fixture
def files() -> Callable[[Settings], dict[str, int]]:
    """Every file of the warehouse but the notes: path → size."""

    def listed(settings: Settings) -> dict[str, int]:
        root = settings.lakehouse / "warehouse"
        found = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
        return {name: size for name, size in found.items() if not name.startswith("_maintenance")}

    return listed
