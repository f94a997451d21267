"""A tokenizer that needs no model files, and documents to cut."""

import re
from collections.abc import Callable

import pytest

from llmops_core.corpus.document import Document, MediaType

MakeDocument = Callable[..., Document]


class WordTokens:
    """Words in pieces of at most five letters, and every other visible character: much like a WordPiece tokenizer."""

    _TOKEN = re.compile(r"\w{1,5}|[^\w\s]")

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self._TOKEN.finditer(text)]


@pytest.fixture
def tokens() -> WordTokens:
    return WordTokens()


@pytest.fixture
def document() -> MakeDocument:
    def make(text: str, title: str = "", media_type: MediaType = "text/plain", document_id: str = "d") -> Document:
        return Document(document_id, title, text, "uri", media_type, "source")

    return make
