"""LoRA adapters by content: an adapter's name is the hash of its files, so a name never means two things."""

import hashlib
import json
from pathlib import Path

from filelock import FileLock

from llmops_core.errors import ModelError
from llmops_core.ids import HASH_LENGTH
from llmops_core.settings import Settings

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def adapter_folder(settings: Settings, adapter: str) -> Path:
    """Where an adapter's files lie; raises `ModelError` if they are not there."""
    folder = settings.models / "adapters" / adapter
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"Adapter {adapter} is not in {folder}. Copy it there, or make a release without it.")
    return folder


def store_adapter(settings: Settings, source: Path) -> str:
    """Copy an adapter (a folder as peft saves it) to the models folder and return its content hash."""
    try:
        files = {name: (source / name).read_bytes() for name in (CONFIG, WEIGHTS)}
        config = json.loads(files[CONFIG])
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{source} is no LoRA adapter: {error}. generator.adapter names a folder with {CONFIG} and {WEIGHTS}."
        ) from error
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode() + b"\0" + files[WEIGHTS]).hexdigest()[
        :HASH_LENGTH
    ]
    target = settings.models / "adapters" / digest
    target.mkdir(parents=True, exist_ok=True)
    # Two builds may store the same one at once.
    with FileLock(settings.models / ".adapters.lock"):
        if not (target / WEIGHTS).exists():
            for name, data in files.items():
                part = target / f"{name}.part"
                part.write_bytes(data)
                part.replace(target / name)
    return digest
