"""The resources of every code location.

Each opens a plain class of llmops_core on the settings of the process that runs the step (environment variables), so the
same definitions serve a laptop, a run pod and a step pod. What a step needs is imported when it needs it, here as in all that
a code location consists of, so that one loads about as fast as Dagster itself does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

from llmops_core.assistant import Assistant, EmbedderModel
from llmops_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from llmops_core.embedders.embedder import Embedder
    from llmops_core.engines.pool import EnginePool
    from llmops_core.lakehouse.lakehouse import Lakehouse
    from llmops_core.vectors.index import VectorIndex


class LakehouseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Iceberg lakehouse."""

    _opened: dict[str, "Lakehouse"] = PrivateAttr(default_factory=dict)

    def open(self, assistant: Assistant) -> "Lakehouse":
        """Open it, the assistant's tables made and up to date; once for all steps of a run that share a process."""
        if assistant.name not in self._opened:
            from llmops_core.lakehouse.lakehouse import Lakehouse

            lakehouse = Lakehouse.open(load_settings())
            lakehouse.prepare(assistant.name)
            self._opened[assistant.name] = lakehouse
        return self._opened[assistant.name]


class VectorsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The LanceDB vector indexes."""

    def index(self, assistant: Assistant, embedder_revision: str) -> "VectorIndex":
        """The index of an assistant for an embedder revision."""
        from llmops_core.vectors.index import VectorIndex

        return VectorIndex(f"{load_settings().lancedb}/{assistant.name}", embedder_revision)


class ModelsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The models that run inside a step."""

    def settings(self) -> Settings:
        """Where model files lie and on which device they run."""
        return load_settings()

    def embedder(self, embedder: EmbedderModel) -> "Embedder":
        """Load an embedder; takes seconds."""
        from llmops_core.embedders.load import load_embedder

        return load_embedder(load_settings(), embedder.model, embedder.query_prefix, embedder.document_prefix)


class EnginesResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The generators, which are processes of their own."""

    @contextmanager
    def pool(self) -> Iterator["EnginePool"]:
        """Engines that are started when first asked for and ended with the block."""
        from llmops_core.engines.pool import EnginePool

        with EnginePool(load_settings()) as pool:
            yield pool


def resources() -> dict[str, object]:
    """All resources, by the names that assets ask for."""
    return {
        "lakehouse": LakehouseResource(),
        "vectors": VectorsResource(),
        "models": ModelsResource(),
        "engines": EnginesResource(),
    }
