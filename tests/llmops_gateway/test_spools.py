"""The spools of a gateway: what cannot be opened is reported, and tried again."""

import json
import logging
from pathlib import Path

import pytest

from llmops_core.errors import NotFoundError, SpoolError
from llmops_core.ids import uuid7
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings, load_settings
from llmops_core.traffic.line import SEALED, segment_name
from llmops_gateway.spools import Spools
from tests.running_gateway import NAME, until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def _no_folder(root: Path) -> Path:
    """A file where the folder of the spool should be."""
    root.mkdir(parents=True)
    (root / NAME).write_text("")
    return root / NAME


def _no_number(root: Path) -> Path:
    """A spool folder with a damaged file in it."""
    (root / NAME / "gateway").mkdir(parents=True)
    (root / NAME / "gateway" / "forgotten").write_text("?")
    return root / NAME / "gateway" / "forgotten"


@pytest.mark.parametrize("damage", [_no_folder, _no_number])
def test_a_spool_that_cannot_be_opened_is_a_problem_until_it_can(settings: Settings, damage: object) -> None:
    assert callable(damage)
    in_the_way = damage(settings.spool)
    spools = Spools(settings)
    spools.start([NAME])
    try:
        assert str(in_the_way) in spools.problems()[NAME]
        with pytest.raises(SpoolError, match=NAME):
            spools.of(NAME)
        in_the_way.unlink()
        until(lambda: None if spools.problems() else True)
        assert spools.of(NAME).healthy()
    finally:
        spools.stop()


def test_a_lakehouse_that_is_away_is_reported_once(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Settings] = []
    really_open = Lakehouse.open

    def open_lakehouse(settings: Settings) -> Lakehouse:
        tries.append(settings)
        return really_open(settings)

    monkeypatch.setattr(Lakehouse, "open", open_lakehouse)
    in_the_way = settings.lakehouse / "catalog.db"
    in_the_way.mkdir(parents=True)
    spools = Spools(settings)

    def reported() -> list[str]:
        return [record.message for record in caplog.records if "request log" in record.message]

    with caplog.at_level(logging.WARNING, "llmops.gateway"):
        spools.start([NAME])
        try:
            until(lambda: True if len(tries) > 2 else None)
            assert len(reported()) == 1
            in_the_way.rmdir()
            until(lambda: True if "shipped again" in reported()[-1] else None)
            assert len(reported()) == 2
        finally:
            spools.stop()


def test_a_foreign_spool_that_cannot_be_read_hides_no_row_that_is_elsewhere(settings: Settings) -> None:
    request_id = str(uuid7())
    line = json.dumps({"payload": {"request_id": request_id}}, separators=(",", ":"))
    damaged = settings.spool / NAME / "a" / segment_name(1, SEALED)
    damaged.mkdir(parents=True)
    whole = settings.spool / NAME / "b" / segment_name(1, SEALED)
    whole.parent.mkdir()
    whole.write_text(f"{line}\n")
    spools = Spools(settings)
    assert spools.find(request_id) == {"request_id": request_id}
    whole.unlink()
    with pytest.raises(SpoolError, match="cannot be read"):
        spools.find(request_id)
    damaged.rmdir()
    with pytest.raises(NotFoundError):
        spools.find(request_id)
