"""Composes the manifest of what `assistant.yaml` names and what was built."""

from llmops_core.assistant import Assistant
from llmops_core.models.adapters import store_adapter
from llmops_core.models.revisions import embedder_revision, generator_revision, reranker_revision
from llmops_core.models.store import context_window
from llmops_core.prompts.versions import PromptVersion
from llmops_core.release.manifest import (
    EmbedderPin,
    GeneratorParams,
    GeneratorPin,
    IndexPin,
    Manifest,
    PromptPin,
    RerankerPin,
    RetrievalPin,
)
from llmops_core.settings import Settings

# A remote engine tells nobody its window; this is what small servers are commonly started with.
REMOTE_CONTEXT_WINDOW = 8_192


def compose(settings: Settings, assistant: Assistant, prompt: PromptVersion, index: IndexPin) -> Manifest:
    """Pin everything that `assistant.yaml` names; raises `ModelError` or `ConfigError` for what is not there."""
    retrieval, embedder, reranker = assistant.retrieval, assistant.embedder, assistant.retrieval.reranker
    return Manifest(
        assistant=assistant.name,
        prompt=PromptPin(name=prompt.name, version=prompt.version, hash=prompt.hash, budget=assistant.prompt.budget),
        generator=_generator(settings, assistant),
        embedder=EmbedderPin(
            model=embedder.model,
            revision=embedder_revision(settings, embedder.model, embedder.query_prefix, embedder.document_prefix),
            query_prefix=embedder.query_prefix or None,
            document_prefix=embedder.document_prefix or None,
        ),
        retrieval=RetrievalPin(
            mode=retrieval.mode,
            top_k=retrieval.top_k,
            query=retrieval.query,
            reranker=RerankerPin(
                model=reranker.model, revision=reranker_revision(settings, reranker.model), pool=reranker.pool
            )
            if reranker
            else None,
        ),
        index=index,
    )


def _generator(settings: Settings, assistant: Assistant) -> GeneratorPin:
    section = assistant.generator
    local = section.engine == "local"
    return GeneratorPin(
        engine=section.engine,
        model=section.model,
        revision=generator_revision(settings, section.model) if local else section.model,
        adapter=store_adapter(settings, assistant.path(section.adapter)) if section.adapter else None,
        base_url=section.base_url,
        api_key_env=section.api_key_env,
        context_window=section.context_window
        or (context_window(settings, section.model) if local else REMOTE_CONTEXT_WINDOW),
        params=GeneratorParams(max_tokens=section.max_tokens, temperature=section.temperature, top_p=section.top_p),
    )
