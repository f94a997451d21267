"""The gateway's files: what was seen last, whole or not at all."""

from pathlib import Path

import pytest

from llmops_gateway.local_copy import LocalCopy, Seen


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path, "notes")
    assert (copy.channels(), copy.bundle("0" * 32)) == ({}, None)
    seen = {"prod": Seen("0" * 32, "e2", ["1" * 32]), "dev": Seen("1" * 32, "e1", [])}
    copy.save_channels(seen)
    copy.save_bundle({"release_id": "0" * 32, "number": 1})
    assert copy.channels() == seen
    assert copy.bundle("0" * 32) == {"release_id": "0" * 32, "number": 1}
    assert LocalCopy.assistants(tmp_path) == ["notes"]


def test_a_save_that_fails_leaves_no_litter(tmp_path: Path) -> None:
    (tmp_path / "notes" / "channels.json").mkdir(parents=True)
    for _ in range(3):
        with pytest.raises(OSError, match=r"channels\.json"):
            LocalCopy(tmp_path, "notes").save_channels({"prod": Seen("0" * 32)})
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["channels.json"]


def test_what_an_earlier_version_saved_says_where_channels_point(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "channels.json").write_text(f'{{"prod": "{"0" * 32}"}}')
    assert LocalCopy(tmp_path, "notes").channels() == {"prod": Seen("0" * 32)}
