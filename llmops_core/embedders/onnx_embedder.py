"""Embedders that onnxruntime runs: bge-small in int8."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmops_core.embedders.embedder import l2_normalised
from llmops_core.embedders.onnx_model import OnnxModel


class OnnxEmbedder:
    """A BERT-like ONNX model whose vector is the last hidden state of the [CLS] token, as BGE was trained."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        revision: str,
        max_tokens: int,
        query_prefix: str = "",
        document_prefix: str = "",
    ) -> None:
        """Load the files of `folder`; raises `ModelError` if they are none."""
        self._onnx = OnnxModel(folder, max_tokens)
        self.model, self.revision, self.max_tokens = model, revision, max_tokens
        self.dimension = int(self._onnx.output_size)
        self._query_prefix, self._document_prefix = query_prefix, document_prefix

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts that are to be found: shape (len(texts), dimension)."""
        return self._embed([self._document_prefix + text for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed a question: shape (dimension,)."""
        vector: NDArray[np.float32] = self._embed([self._query_prefix + text])[0]
        return vector

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._onnx.run(text)[0]
        return l2_normalised(vectors)
