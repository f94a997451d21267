import sys

import pytest

from llmops_core.corpus.document import Document
from llmops_core.corpus.sources.python_topics import PythonTopicsSource
from llmops_core.errors import SourceError


def test_every_topic_is_a_document() -> None:
    from pydoc_data.topics import topics

    items = list(PythonTopicsSource().read())
    documents = [item for item in items if isinstance(item, Document)]
    assert documents == items
    assert [d.document_id for d in documents] == sorted(topics)
    by_id = {d.document_id: d for d in documents}
    assert by_id["assert"].title == 'The "assert" statement'
    assert by_id["assert"].uri == "pydoc:assert"
    assert by_id["assert"].text == topics["assert"]


def test_the_fingerprint_is_stable_within_one_python() -> None:
    one, other = PythonTopicsSource(), PythonTopicsSource()
    assert one.stat_fingerprint() == other.stat_fingerprint()
    assert one.content_fingerprint() == other.content_fingerprint()


def test_a_python_without_topics_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(SourceError, match="install the full Python"):
        list(PythonTopicsSource().read())
