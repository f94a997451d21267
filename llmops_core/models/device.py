"""Which device a torch model runs on, and in which precision it computes there."""

from typing import TYPE_CHECKING

from llmops_core.errors import ConfigError
from llmops_core.settings import Settings

if TYPE_CHECKING:
    import torch

# What torch calls bfloat16 units, on x86 and on ARM.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def resolve_device(settings: Settings) -> str:
    """Turn `LLMOPS_DEVICE` into `cpu`, `cuda` or `mps`; `auto` takes a GPU if torch sees one.

    Raises `ConfigError` if the device that was asked for is not there.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if settings.device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if present[name])
    if not present[settings.device]:
        here = ", ".join(name for name, there in present.items() if there)
        raise ConfigError(
            f"LLMOPS_DEVICE is {settings.device}, but torch {torch.__version__} sees none. Here: {here}. Set one of them"
            " or auto, or install a torch build for the device"
        )
    return settings.device


def compute_dtype(device: str) -> "torch.dtype":
    """The precision to compute in, for weights that are bfloat16: bfloat16 itself, or float32 on a CPU without units for it.

    There torch emulates bfloat16, and takes many times as long as in float32, most of all for products with a vector, which are
    what decoding consists of. float32 holds every bfloat16 weight exactly.
    """
    import torch

    if device != "cpu":
        return torch.bfloat16
    units = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(units.get(name) for name in _BFLOAT16_UNITS) else torch.float32
