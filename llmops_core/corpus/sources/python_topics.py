"""The language reference inside the running CPython: real documents without a download, for the sample and for tests."""

import sys
from collections.abc import Iterator

from llmops_core.corpus.decoding import text_problem
from llmops_core.corpus.document import Document, Rejected
from llmops_core.errors import SourceError
from llmops_core.ids import content_hash


class PythonTopicsSource:
    """Topics of `pydoc_data.topics`, one document each; its id is the topic's key, such as `assert`."""

    name = "python_topics"

    def read(self) -> Iterator[Document | Rejected]:
        """Stream the topics by key; raises `SourceError` where this Python has none."""
        for topic, text in sorted(_topics().items()):
            uri = f"pydoc:{topic}"
            if problem := text_problem(text):
                yield Rejected(self.name, uri, problem)
                continue
            title = text.strip().split("\n", 1)[0].strip()
            # Rendered to plain text, but its headings are still underlined as in reStructuredText.
            yield Document(topic, title, text, uri, "text/x-rst", self.name)

    def stat_fingerprint(self) -> str:
        """Name the state: the topics are in memory, so their hash is cheap."""
        return self.content_fingerprint()

    def content_fingerprint(self) -> str:
        """Hash the topics and the version of the running Python."""
        return content_hash([self.name, sys.version.split()[0], _topics()])


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise SourceError(
            f"Source python_topics: {sys.executable} has no module pydoc_data.topics. Some systems pack it apart: install "
            "the full Python (on Debian: libpython3-stdlib), or use another source in assistant.yaml"
        ) from error
    return dict(topics)
