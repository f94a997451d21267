"""The tokens of a chat: what the chat template writes may be control tokens, what the messages say is text.

A tokenizer takes `<|im_end|>` for the end of a turn wherever it stands. In a question or a retrieved document it would
end the turn and begin one that nobody said.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Any

from llmops_core.engines.chat import Message
from llmops_core.errors import InvalidRequestError


class ChatTokens:
    """Encodes chats for a model, with the tokenizer that transformers loaded for it."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import AddedToken, Tokenizer

        self._tokenizer = tokenizer
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        special = {n: token for n, token in self._backend.get_added_tokens_decoder().items() if token.special}
        # No text contains these names, since nobody can know them.
        secret = secrets.token_hex(8)
        self._said = {token.content: f"{secret}-said-{n};" for n, token in special.items()}
        self._control = {token.content: f"{secret}-control-{n};" for n, token in special.items()}
        self._text = {name: content for content, name in self._said.items()}
        self._names = _any_of(self._said)
        self._marks = _any_of([*self._text, *self._control])
        # From here on a control token's own name is text, and the name made for it is the token.
        self._backend.encode_special_tokens = True
        self._backend.add_tokens(
            [
                AddedToken(
                    self._control[token.content],
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                    normalized=False,
                )
                for token in special.values()
            ]
        )
        self._ids = {self._backend.token_to_id(self._control[token.content]): n for n, token in special.items()}

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The tokens up to where the answer begins; raises `InvalidRequestError` if the template refuses the messages."""
        from jinja2 import TemplateError

        turns = [{"role": m.role, "content": self._names.sub(self._hidden, m.content)} for m in messages]
        try:
            chat = str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except TemplateError as error:
            raise InvalidRequestError(f"The model's chat template refuses the messages: {error}") from error
        text = self._marks.sub(self._shown, chat)
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [self._ids.get(n, n) for n in ids]

    def _hidden(self, said: re.Match[str]) -> str:
        return self._said[said[0]]

    def _shown(self, mark: re.Match[str]) -> str:
        return self._text.get(mark[0]) or self._control[mark[0]]


def _any_of(names: Any) -> re.Pattern[str]:
    """Matches the longest of the names; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
