"""Fetches a model of the Hugging Face hub at its pinned commit."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from llmops_core.errors import ModelError
from llmops_core.models.reference import HubModel

# Copies of the weights for other runtimes, which would multiply the download.
_OTHER_RUNTIMES = ("*.h5", "*.msgpack", "*.ot", "*.gguf", "*.onnx", "*.onnx_data", "onnx/*", "openvino/*", "coreml/*")


def download_snapshot(model: HubModel, folder: Path) -> None:
    """Download the files of `model` into `folder`; raises `ModelError` if the hub cannot be reached or has no such model.

    Pickled weights are left out where the repository has safetensors.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        names = list_repo_files(model.repo, revision=model.commit)
        pickles = ("*.bin", "*.pt", "*.pth") if any(name.endswith(".safetensors") for name in names) else ()
        unwanted = [*_OTHER_RUNTIMES, *pickles]
        snapshot_download(model.repo, revision=model.commit, local_dir=folder, ignore_patterns=unwanted)
        # A hub that goes away in between makes the client return the folder as it is, without an error.
        for name in names:
            if not any(fnmatch(name, pattern) for pattern in unwanted):
                (folder / name).stat()
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OS errors alike
        raise ModelError(
            f"hf:{model.repo}@{model.commit} cannot be downloaded: {type(error).__name__}: {_first_line(error)}. The hub"
            " must be reachable (HF_ENDPOINT, HF_TOKEN for closed models) and HF_HUB_OFFLINE unset; or copy the model"
            " into a folder and name it path:<folder>"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes about the download


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "").rstrip(".")
