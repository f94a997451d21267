"""What every embedder can do."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Turns texts into L2-normalised float32 vectors, so that their dot product is the cosine similarity.

    Safe to call from several threads; calls wait for one another.
    """

    @property
    def model(self) -> str:
        """Its name, as `assistant.yaml` writes it."""
        ...

    @property
    def revision(self) -> str:
        """What pins it (see llmops_core.models.revisions)."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens that it reads of a text, special tokens included; the rest is cut off."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts that are to be found: shape (len(texts), dimension)."""
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed a question: shape (dimension,). The same text gives the same bits on the same machine."""
        ...


def l2_normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row of (n, dimension) to length 1 in float32; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result.astype(np.float32, copy=False)
