"""All sources of an assistant as one stream of documents with unique ids, and as one fingerprint."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from llmops_core import assistant as config
from llmops_core.assistant import Assistant
from llmops_core.corpus.document import Document, Rejected
from llmops_core.corpus.sources.folder import FolderSource
from llmops_core.corpus.sources.git import GitSource
from llmops_core.corpus.sources.jsonl import JsonlSource
from llmops_core.corpus.sources.python_topics import PythonTopicsSource
from llmops_core.corpus.sources.web import WebSource
from llmops_core.errors import EmptyCorpusError
from llmops_core.ids import content_hash
from llmops_core.settings import load_settings


class Source(Protocol):
    """A place that documents come from."""

    @property
    def name(self) -> str:
        """Stable name within the assistant, such as `folder:docs`."""
        ...

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the documents; what is unreadable is rejected. Raises `SourceError` if the whole source is."""
        ...

    def stat_fingerprint(self) -> str:
        """Say cheaply whether anything may have changed: another answer means that it is worth a look."""
        ...

    def content_fingerprint(self) -> str:
        """Hash the bytes: another answer means that something did change."""
        ...


def sources_of(assistant: Assistant) -> list[Source]:
    """Make the sources that `assistant.yaml` lists, in its order; what they bring from elsewhere is kept below the home."""
    cache = load_settings().sources
    sources: list[Source] = []
    for section in assistant.sources:
        match section:
            case config.PythonTopicsSource():
                sources.append(PythonTopicsSource())
            case config.FolderSource():
                sources.append(FolderSource(section, assistant.folder))
            case config.JsonlSource():
                sources.append(JsonlSource(section, assistant.folder))
            case config.GitSource():
                sources.append(GitSource(section, assistant.folder, cache / "git"))
            case config.WebSource():
                sources.append(WebSource(section, cache / "web"))
    return sources


def read_all(sources: Iterable[Source]) -> Iterator[Document | Rejected]:
    """Stream every source in order; of documents with one id the first wins and the others are rejected.

    Raises `SourceError` when it comes to a source that cannot be read at all.
    """
    places: dict[str, str] = {}
    for source in sources:
        for item in source.read():
            if isinstance(item, Document):
                place = f"{item.uri} ({item.source})"
                if first := places.get(item.document_id):
                    reason = f"document_id {item.document_id!r} is taken: first {first}, again {place}"
                    yield Rejected(item.source, item.uri, reason)
                    continue
                places[item.document_id] = place
            yield item


def fingerprint(sources: Iterable[Source], kind: Literal["stat", "content"]) -> str:
    """One fingerprint of all sources: `stat` is cheap, `content` reads every byte."""
    return content_hash(
        [[s.name, s.stat_fingerprint() if kind == "stat" else s.content_fingerprint()] for s in sources]
    )


def empty_corpus(sources: Iterable[Source], rejected: Sequence[Rejected]) -> EmptyCorpusError:
    """Make the error for sources without a single readable document; it quotes the first reasons."""
    names = ", ".join(source.name for source in sources)
    reasons = "".join(f"\n  {item.uri}: {item.reason}" for item in rejected[:5])
    return EmptyCorpusError(
        f"No readable document in {names} ({len(rejected)} rejected). Put documents there, or correct sources in "
        f"assistant.yaml{':' if reasons else ''}{reasons}"
    )
