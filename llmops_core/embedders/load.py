"""Picks the class that runs an embedder."""

from llmops_core.embedders.embedder import Embedder
from llmops_core.embedders.onnx_embedder import OnnxEmbedder
from llmops_core.embedders.sentence_transformer import SentenceTransformerEmbedder
from llmops_core.models.builtin import BuiltinModel
from llmops_core.models.device import resolve_device
from llmops_core.models.reference import parse_reference
from llmops_core.models.revisions import embedder_revision
from llmops_core.models.store import model_folder
from llmops_core.settings import Settings


def load_embedder(settings: Settings, model: str, query_prefix: str = "", document_prefix: str = "") -> Embedder:
    """Load an embedder by its built-in name, `hf:<repo>@<commit>` or `path:<folder>`; takes seconds the first time.

    An empty prefix leaves it to the model: a built-in one has its own, others may bring theirs in their configuration.
    Raises `ModelError` if the name is none, or its files are not there or cannot be loaded.
    """
    reference = parse_reference(model, "embedder")
    folder = model_folder(settings, model, "embedder")
    revision = embedder_revision(settings, model, query_prefix, document_prefix)
    builtin = reference if isinstance(reference, BuiltinModel) else None
    if builtin:
        query_prefix = query_prefix or builtin.query_prefix
        document_prefix = document_prefix or builtin.document_prefix
    if builtin and builtin.weights.endswith(".onnx"):
        return OnnxEmbedder(
            folder,
            model=model,
            revision=revision,
            max_tokens=builtin.max_tokens,
            query_prefix=query_prefix,
            document_prefix=document_prefix,
        )
    return SentenceTransformerEmbedder(
        folder,
        model=model,
        revision=revision,
        device=resolve_device(settings),
        max_tokens=builtin.max_tokens if builtin else None,
        query_prefix=query_prefix,
        document_prefix=document_prefix,
    )
