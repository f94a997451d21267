"""The one error tree.

Whoever catches decides by type: a `PermanentError` fails again on the same input, so it is reported and never retried; a
`RetryableError` may pass unchanged. Messages name what went wrong, where, and the way out. Errors of other libraries are
mapped to these where they enter.
"""


class LlmopsError(Exception):
    """Base of every error that this platform raises on purpose."""


class PermanentError(LlmopsError):
    """The same input will fail again: somebody has to change something first."""


class RetryableError(LlmopsError):
    """The same call may succeed later, unchanged."""


class ConfigError(PermanentError):
    """A setting, an `assistant.yaml` or a case file is wrong."""


class SourceError(PermanentError):
    """A source of documents cannot be read at all (a single bad document is rejected instead)."""


class EmptyCorpusError(SourceError):
    """The sources hold no readable document."""


class ModelError(PermanentError):
    """A model is unknown, missing or damaged."""


class PromptError(PermanentError):
    """A prompt template does not compile or render."""


class ContextOverflowError(PromptError):
    """What must be in the prompt does not fit into the generator's context window."""


class NotFoundError(PermanentError):
    """A release, index version, request or other named thing does not exist."""


class InvalidRequestError(PermanentError):
    """A caller sent something that can never be answered as it is."""


class GateError(PermanentError):
    """A release may not be moved as asked: the gate, a rejection, or a person's word that is missing."""


class ConflictError(RetryableError):
    """Somebody else moved the same thing first: reload, compare, try again."""


class LakehouseError(RetryableError):
    """The Iceberg catalog or its storage did not do what was asked."""


class IndexCorruptError(RetryableError):
    """A vector index cannot be read; it can be rebuilt from the lakehouse."""


class EngineError(RetryableError):
    """A generator's engine is away, refuses, or answers nonsense."""


class SpoolError(RetryableError):
    """A row could not be made durable in the spool; nothing may be served unlogged."""
