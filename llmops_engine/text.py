"""Tokens into text as they come: whole characters only, and never past a stop string."""

from collections.abc import Sequence
from typing import Any

# What a tokenizer decodes the bytes of an unfinished character to.
REPLACEMENT = "\ufffd"


class TextStream:
    """Turns the tokens of one answer into pieces of text.

    All tokens are decoded anew for each, since a token's text may depend on those before it (half a millisecond at 2,000).
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._tokens: list[int] = []
        self._sent = 0
        self.stopped = False
        """Whether a stop string came; it is not part of the text."""

    @property
    def count(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    def push(self, token: int) -> str:
        """Take a token and give the text that is certain now."""
        self._tokens.append(token)
        text = self._decode()
        found = [at for s in self._stop if (at := text.find(s, self._sent)) >= 0]
        if found:
            self.stopped = True
            return self._send(text, min(found))
        whole = text.rstrip(REPLACEMENT)
        # The end of the text may be the beginning of a stop string.
        held = max((self._begun(s, whole) for s in self._stop), default=0)
        return self._send(text, len(whole) - held)

    def rest(self) -> str:
        """What was held back and is certain at the end; half a character is dropped."""
        if self.stopped:
            return ""
        text = self._decode().rstrip(REPLACEMENT)
        return self._send(text, len(text))

    def _begun(self, stop: str, text: str) -> int:
        """How much of a stop string, at most, the end of the text is; what was sent already is no part of it."""
        most = min(len(stop) - 1, len(text) - self._sent)
        return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))

    def _send(self, text: str, end: int) -> str:
        piece, self._sent = text[self._sent : end], max(self._sent, end)
        return piece
