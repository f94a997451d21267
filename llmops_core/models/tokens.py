"""Counts tokens without torch: what chunking and prompt budgets need of a model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from llmops_core.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SURROGATES = re.compile("[\ud800-\udfff]")


def valid_unicode(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes, by U+FFFD; the length stays the same.

    They come from broken escapes in JSON.
    """
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


class TokenCounter:
    """A model's own tokenizer. No special tokens, no truncation, no padding; safe to use from several threads.

    What looks like a special token in a text is counted as text, since that is what generators take it for.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Number of tokens."""
        return len(self._tokenizer.encode(valid_unicode(text), add_special_tokens=False).ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token lies: (start, end) in characters. A character of several tokens is in the span of each."""
        spans: list[tuple[int, int]] = self._tokenizer.encode(valid_unicode(text), add_special_tokens=False).offsets
        return spans


class EstimatedTokens:
    """Stands in where a tokenizer is unknown: a token for every three bytes of UTF-8, rounded up.

    A language that a model knows well has four bytes a token or more, so this counts too many rather than too few. One that it
    hardly knows has fewer (Russian for SmolLM2: 2.4).
    """

    _BYTES = 3

    def count(self, text: str) -> int:
        """Number of tokens, estimated."""
        return -(-len(valid_unicode(text).encode()) // self._BYTES)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each estimated token lies: (start, end) of the characters that its bytes belong to."""
        character_of_byte = [n for n, c in enumerate(valid_unicode(text)) for _ in c.encode()]
        return [
            (group[0], group[-1] + 1)
            for group in (
                character_of_byte[at : at + self._BYTES] for at in range(0, len(character_of_byte), self._BYTES)
            )
        ]


def load_tokens(model_folder: Path) -> TokenCounter:
    """Load `tokenizer.json` of a model folder; raises `ModelError` if there is none that can be read."""
    from tokenizers import Tokenizer

    file = model_folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"{model_folder} has no tokenizer.json. Make one:"
            " transformers.AutoTokenizer.from_pretrained(<folder>).save_pretrained(<folder>)"
        )
    try:
        return TokenCounter(Tokenizer.from_file(str(file)))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"{file} is no tokenizer: {error}") from error
