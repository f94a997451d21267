from pathlib import Path

import pytest
import torch

from llmops_core.errors import ConfigError
from llmops_core.models.device import compute_dtype, resolve_device
from llmops_core.settings import load_settings


def test_auto_takes_what_is_there(tmp_path: Path) -> None:
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device(load_settings(home=tmp_path, device="auto")) == gpu
    assert resolve_device(load_settings(home=tmp_path, device="cpu")) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"LLMOPS_DEVICE is cuda, but torch .* sees none\. Here: .*cpu"):
        resolve_device(load_settings(home=tmp_path, device="cuda"))


@pytest.mark.parametrize(
    ("units", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"neon": True, "bf16": False}, torch.float32),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_units_for_it(
    units: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert compute_dtype("cpu") == dtype
    assert compute_dtype("cuda") == torch.bfloat16
