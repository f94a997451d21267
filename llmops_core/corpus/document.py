"""What a source yields: a document, or the reason why there is none."""

from dataclasses import dataclass
from typing import Literal

from llmops_core.ids import content_hash

MediaType = Literal["text/plain", "text/markdown", "text/x-rst", "text/html"]


@dataclass(frozen=True)
class Document:
    """A source text with a stable id.

    `text` is the source's own text, not normalised; `media_type` says what it still looks like, so HTML that was turned
    into Markdown is `text/markdown`. `title` may be empty where a source names none.
    """

    document_id: str
    title: str
    text: str
    uri: str
    media_type: MediaType
    source: str

    @property
    def content_hash(self) -> str:
        """Hash of what a reader sees (title and text): moving a document does not change it."""
        return content_hash({"title": self.title, "text": self.text})


@dataclass(frozen=True)
class Rejected:
    """A document that could not be read: where it lies and why, in words its owner can act on."""

    source: str
    uri: str
    reason: str
