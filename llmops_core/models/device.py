"""Which device a torch model runs on."""

from llmops_core.errors import ConfigError
from llmops_core.settings import Settings


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
