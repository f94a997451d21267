from dataclasses import replace

from llmops_core.corpus.document import Document

DOCUMENT = Document("a", "Title", "text", "a.md", "text/markdown", "folder:docs")


def test_the_content_hash_is_about_title_and_text_alone() -> None:
    moved = replace(DOCUMENT, document_id="b", uri="b.md", source="folder:other", media_type="text/plain")
    assert moved.content_hash == DOCUMENT.content_hash
    assert replace(DOCUMENT, text="Text").content_hash != DOCUMENT.content_hash
    assert replace(DOCUMENT, title="title").content_hash != DOCUMENT.content_hash


def test_title_and_text_do_not_run_into_each_other() -> None:
    one, other = replace(DOCUMENT, title="a", text="bc"), replace(DOCUMENT, title="ab", text="c")
    assert one.content_hash != other.content_hash
