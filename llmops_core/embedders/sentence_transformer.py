"""Embedders that sentence-transformers runs: MiniLM, and whatever `hf:` or `path:` names."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops_core.embedders.embedder import l2_normalised
from llmops_core.errors import ModelError
from llmops_core.models.device import compute_dtype
from llmops_core.models.quiet import quiet_libraries
from llmops_core.models.tokens import valid_unicode

# On two cores small batches win by 10–30%: texts of one length meet, so less padding is computed. A GPU wants them large.
BATCH_CPU, BATCH_GPU = 8, 64


class SentenceTransformerEmbedder:
    """A sentence-transformers model with weights in bfloat16, which is no worse at retrieval.

    It computes in bfloat16 where that is fast, else in float32. A vector differs a little with that (cosine above 0.998 for
    MiniLM) and with the texts beside it in a batch, as matrix products of other shapes round otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        revision: str,
        device: str,
        query_prefix: str = "",
        document_prefix: str = "",
        max_tokens: int | None = None,
    ) -> None:
        """Load the files of `folder`; `max_tokens` None takes the model's own. Raises `ModelError` if they are none."""
        quiet_libraries()
        import torch
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(
                str(folder), device=device, local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
            ).to(compute_dtype(device))
            if max_tokens is not None:
                self._model.max_seq_length = max_tokens
            own_max_tokens, dimension = self._model.get_max_seq_length(), self._model.get_embedding_dimension()
        except Exception as error:  # whatever transformers makes of files that are no model
            raise ModelError(f"{folder} cannot be loaded as an embedder: {type(error).__name__}: {error}") from error
        if not dimension:
            raise ModelError(f"{folder} holds a model that makes no vectors of a fixed length")
        self.model, self.revision, self.dimension = model, revision, int(dimension)
        self.max_tokens = int(own_max_tokens or 512)
        self._batch = BATCH_CPU if device == "cpu" else BATCH_GPU
        self._query_prefix, self._document_prefix = query_prefix, document_prefix
        self._lock = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts that are to be found: shape (len(texts), dimension). Sorts them by length into batches."""
        return self._embed(texts, self._model.encode_document, self._document_prefix)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed a question: shape (dimension,)."""
        vector: NDArray[np.float32] = self._embed([text], self._model.encode_query, self._query_prefix)[0]
        return vector

    def _embed(self, texts: Sequence[str], encode: Callable[..., Any], prefix: str) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:
            vectors = encode(
                [valid_unicode(text) for text in texts],
                # None leaves the prompt to the model's own configuration.
                prompt=prefix or None,
                batch_size=self._batch,
                show_progress_bar=False,
                convert_to_tensor=True,
            )
        return l2_normalised(vectors.float().cpu().numpy())
