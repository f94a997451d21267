"""`assistant.yaml`: what one assistant is, validated before anything runs."""

from llmops_core.assistant.load import FILE_NAME, json_schema, load_assistant
from llmops_core.assistant.schema import Assistant, EmbedderModel, Retention
from llmops_core.assistant.sources import FolderSource, GitSource, JsonlSource, PythonTopicsSource, WebSource

__all__ = [
    "FILE_NAME",
    "Assistant",
    "EmbedderModel",
    "FolderSource",
    "GitSource",
    "JsonlSource",
    "PythonTopicsSource",
    "Retention",
    "WebSource",
    "json_schema",
    "load_assistant",
]
