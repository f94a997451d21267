"""A release, loaded: everything that an answer needs, in memory and ready.

Both the gateway and evaluation answer through this class, so that what was evaluated is what is served. Models are shared
by revision between loaded releases (`ModelPool`); the generator is another process (see llmops_core.engines).
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from llmops_core.answering.conversation import Conversation, condensing
from llmops_core.embedders.embedder import Embedder
from llmops_core.embedders.load import load_embedder
from llmops_core.embedders.reranker import Reranker, load_reranker
from llmops_core.engines.chat import Message
from llmops_core.errors import ContextOverflowError, PromptError
from llmops_core.models.revisions import check_revision, embedder_revision, reranker_revision
from llmops_core.models.store import model_folder
from llmops_core.models.tokens import EstimatedTokens, load_tokens
from llmops_core.prompts.budget import CountsTokens, Material, Rendered, render_within
from llmops_core.prompts.template import PromptTemplate
from llmops_core.release.manifest import EmbedderPin, GeneratorPin, Manifest, RerankerPin
from llmops_core.settings import Settings
from llmops_core.vectors.hit import Hit
from llmops_core.vectors.index import VectorIndex
from llmops_core.vectors.reader import IndexReader
from llmops_core.vectors.search import search

M = TypeVar("M")


class ModelPool:
    """Loads each model revision once, whoever asks first; it is let go of with the last release that holds it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._lock = threading.Lock()

    def embedder(self, pin: EmbedderPin) -> Embedder:
        """The embedder of a manifest; raises `ModelError` if what is on disk has another revision."""
        prefixes = (pin.query_prefix or "", pin.document_prefix or "")
        check_revision(pin.model, pin.revision, embedder_revision(self._settings, pin.model, *prefixes))
        return self._once(pin.revision, lambda: load_embedder(self._settings, pin.model, *prefixes))

    def reranker(self, pin: RerankerPin) -> Reranker:
        """The reranker of a manifest; raises `ModelError` if what is on disk has another revision."""
        check_revision(pin.model, pin.revision, reranker_revision(self._settings, pin.model))
        return self._once(pin.revision, lambda: load_reranker(self._settings, pin.model))

    def tokens(self, pin: GeneratorPin) -> CountsTokens:
        """The generator's tokenizer; an estimate where it is a remote engine's own."""
        if pin.engine == "openai":
            return EstimatedTokens()
        folder = model_folder(self._settings, pin.model, "generator")
        return self._once(f"tokens:{pin.revision}", lambda: load_tokens(folder))

    def _once(self, key: str, load: Callable[[], M]) -> M:
        with self._lock:
            model: M | None = self._models.get(key)
            if model is None:
                model = self._models[key] = load()
            return model


@dataclass(frozen=True)
class Retrieved:
    """What was found for a question."""

    query: str
    query_vector: NDArray[np.float32] | None
    hits: tuple[Hit, ...]
    milliseconds: float


class LoadedRelease:
    """A manifest with its index, models and prompt."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        reader: IndexReader,
        embedder: Embedder | None,
        reranker: Reranker | None,
        template: PromptTemplate,
        counter: CountsTokens,
    ) -> None:
        self.manifest = manifest
        self.release_id = manifest.release_id
        self._reader = reader
        self._embedder = embedder
        self._reranker = reranker
        self._template = template
        self._counter = counter

    def embed(self, query: str) -> NDArray[np.float32] | None:
        """The vector of a question, shape (dimension,); None where words alone are searched for."""
        return self._embedder.embed_query(query) if self._embedder else None

    def retrieve(self, query: str, top_k: int | None = None, vector: NDArray[np.float32] | None = None) -> Retrieved:
        """Find the chunks for a question: `top_k` of them, by default as many as the manifest says.

        `vector`: the question's, if it is known already, as in a replay.
        """
        started = time.perf_counter()
        pin = self.manifest.retrieval
        vector = self.embed(query) if vector is None else vector
        hits = search(
            self._reader,
            pin.mode,
            query,
            vector,
            top_k or pin.top_k,
            reranker=self._reranker,
            pool=pin.reranker.pool if pin.reranker else 0,
        )
        return Retrieved(query, vector, tuple(hits), (time.perf_counter() - started) * 1000)

    def condensing(self, conversation: Conversation) -> list[Message]:
        """What to ask the generator for the question to search with; empty if that is the one that was asked."""
        if self.manifest.retrieval.query != "condensed":
            return []
        return condensing(conversation, self.manifest.generator.context_window, self._counter)

    def render(
        self,
        conversation: Conversation,
        chunks: Sequence[Hit],
        features: Mapping[str, Any],
        max_tokens: int | None = None,
    ) -> Rendered:
        """Make the final messages within the context window.

        Raises `ContextOverflowError`, or `PromptError` if the release's prompt does not render.
        """
        generator = self.manifest.generator
        room = generator.context_window - (max_tokens or generator.params.max_tokens)
        material = Material(
            self.manifest.assistant, conversation.question, conversation.history, tuple(chunks), features
        )
        prompt = self.manifest.prompt
        try:
            return render_within(self._template, material, budget=prompt.budget, room=room, counter=self._counter)
        except ContextOverflowError:
            raise
        except PromptError as error:
            raise PromptError(
                f"Release {self.release_id}, version {prompt.version} of its prompt: {error}. Correct the template and build, or"
                " put another release on the channel: llmops release promote RELEASE prod"
            ) from error


def load_release(settings: Settings, pool: ModelPool, manifest: Manifest, prompt_text: str) -> LoadedRelease:
    """Load what a manifest pins; slow the first time for each model. Raises the error of whatever part is missing."""
    index = VectorIndex(f"{settings.lancedb}/{manifest.assistant}", manifest.embedder.revision)
    reranker = manifest.retrieval.reranker
    return LoadedRelease(
        manifest,
        reader=index.open(manifest.index.version),
        embedder=pool.embedder(manifest.embedder) if manifest.retrieval.mode != "full_text" else None,
        reranker=pool.reranker(reranker) if reranker else None,
        template=PromptTemplate(manifest.prompt.name, prompt_text),
        counter=pool.tokens(manifest.generator),
    )
