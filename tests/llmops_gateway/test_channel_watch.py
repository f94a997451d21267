"""The gateway follows the channels for months."""

import gc
from pathlib import Path

import psutil
import pytest

from llmops_core.errors import NotFoundError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.settings import Settings, load_settings
from llmops_gateway import channel_watch
from llmops_gateway.channel_watch import ChannelWatch
from llmops_gateway.open_lakehouse import OpenLakehouse
from tests.running_gateway import NAME, until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = load_settings(home=tmp_path / "home")
    Lakehouse.open(settings).prepare(NAME)
    return settings


def test_looking_again_and_again_leaves_no_file_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_watch, "POLL_S", 0.001)
    looks: list[int] = []
    watch = ChannelWatch(settings, lambda: looks.append(psutil.Process().num_fds()))
    gc.disable()
    try:
        watch.start()
        until(lambda: True if len(looks) > 150 else None)
    finally:
        gc.enable()
        watch.stop()
    assert max(looks[10:]) <= looks[10] + 3


def test_the_lakehouse_is_opened_anew_after_an_error_that_may_be_its_own(settings: Settings) -> None:
    lakehouse = OpenLakehouse(settings)
    with lakehouse.use() as first:
        pass
    with pytest.raises(NotFoundError), lakehouse.use():
        raise NotFoundError("no such release")
    with lakehouse.use() as again:
        assert again is first
    with pytest.raises(OSError, match="away"), lakehouse.use():
        raise OSError("away")
    with lakehouse.use() as anew:
        assert anew is not first
        assert anew.assistants() == [NAME]
    lakehouse.close()
