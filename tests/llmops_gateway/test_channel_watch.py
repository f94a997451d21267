"""The gateway follows the channels for months."""

import errno
import gc
import logging
import threading
from pathlib import Path

import psutil
import pytest

from llmops_core.errors import NotFoundError, PermanentError
from llmops_core.lakehouse.lakehouse import Lakehouse
from llmops_core.release.registry import Releases
from llmops_core.settings import Settings, load_settings
from llmops_gateway import channel_watch
from llmops_gateway.channel_watch import ChannelWatch
from llmops_gateway.local_copy import LocalCopy, Seen
from llmops_gateway.open_lakehouse import OpenLakehouse
from tests.moving import move
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


def _point_prod(settings: Settings, assistant: str, release_id: str = "0" * 32) -> None:
    lakehouse = Lakehouse.open(settings)
    lakehouse.prepare(assistant)
    move(Releases(lakehouse, assistant).channels, "prod", release_id)


def test_a_lakehouse_that_hangs_does_not_keep_a_gateway_from_starting_on_its_local_copy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalCopy(settings.gateway, NAME).save_channels({"prod": Seen("0" * 32)})
    answers = threading.Event()
    really_ask = Lakehouse.assistants

    def hang(lakehouse: Lakehouse) -> list[str]:
        answers.wait()
        return really_ask(lakehouse)

    monkeypatch.setattr(Lakehouse, "assistants", hang)
    monkeypatch.setattr(channel_watch, "FIRST_LOOK_S", 0.1)
    monkeypatch.setattr(channel_watch, "POLL_S", 0.01)
    watch = ChannelWatch(settings, lambda: None)
    watch.start()
    try:
        assert watch.channels(NAME) == {"prod": "0" * 32}
        assert watch.away_since is not None
        answers.set()
        until(lambda: True if watch.away_since is None else None)
    finally:
        answers.set()
        watch.stop()


def test_an_assistant_that_cannot_be_read_does_not_keep_the_others_from_being_followed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _point_prod(settings, "another")
    _point_prod(settings, NAME)
    really_find = Lakehouse.table

    def damaged(lakehouse: Lakehouse, assistant: str, name: str) -> object:
        if assistant == "another":
            raise OSError("damaged")
        return really_find(lakehouse, assistant, name)

    monkeypatch.setattr(Lakehouse, "table", damaged)
    watch = ChannelWatch(settings, lambda: None)
    watch.start()
    try:
        assert watch.channels(NAME) == {"prod": "0" * 32}
        assert watch.away_since is not None
    finally:
        watch.stop()


def test_a_full_disk_is_called_so_and_channels_are_followed_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _point_prod(settings, NAME)
    monkeypatch.setattr(channel_watch, "POLL_S", 0.01)
    looks: list[None] = []
    watch = ChannelWatch(settings, lambda: looks.append(None))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "llmops.gateway"):

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(LocalCopy, "save_channels", full)
        watch.start()
        until(lambda: True if len(looks) > 3 else None)
        assert watch.channels(NAME) == {"prod": "0" * 32}
        assert watch.away_since is None
        assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    try:
        until(lambda: True if LocalCopy(settings.gateway, NAME).channels() else None)
    finally:
        watch.stop()


def test_rollbacks_that_cannot_be_read_are_told_once_and_channels_are_followed_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of a newer version, after a way back to this one."""
    file = settings.gateway / NAME / "rollbacks.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"waiting": [{"format": 2}]}')
    _point_prod(settings, NAME)
    monkeypatch.setattr(channel_watch, "POLL_S", 0.01)
    looks: list[None] = []
    watch = ChannelWatch(settings, lambda: looks.append(None))
    watch.start()
    try:
        _point_prod(settings, NAME, "1" * 32)
        until(lambda: True if watch.channels(NAME) == {"prod": "1" * 32} and len(looks) > 5 else None)
        with pytest.raises(PermanentError, match="move it away"):
            watch.roll_back(NAME, "prod", None, author="me", reason="")
    finally:
        watch.stop()
    assert len([record for record in caplog.records if "rollbacks.json cannot be read" in record.message]) == 1
