from pathlib import Path

import pytest
import torch

from llmops_core.errors import ConfigError
from llmops_core.models.device import resolve_device
from llmops_core.settings import load_settings


def test_auto_takes_what_is_there(tmp_path: Path) -> None:
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device(load_settings(home=tmp_path, device="auto")) == gpu
    assert resolve_device(load_settings(home=tmp_path, device="cpu")) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"LLMOPS_DEVICE is cuda, but torch .* sees none\. Here: .*cpu"):
        resolve_device(load_settings(home=tmp_path, device="cuda"))
