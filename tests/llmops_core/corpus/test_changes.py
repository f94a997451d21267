import polars as pl

from llmops_core.corpus.changes import diff


def corpus(**hashes: str) -> pl.DataFrame:
    schema = {"document_id": pl.String, "document_hash": pl.String}
    return pl.DataFrame({"document_id": list(hashes), "document_hash": list(hashes.values())}, schema=schema)


def test_each_document_is_new_changed_unchanged_or_deleted() -> None:
    changes = diff(corpus(b="1", a="1", c="1", d="1"), corpus(e="1", d="1", c="2", a="1"))
    assert (changes.new, changes.changed, changes.unchanged, changes.deleted) == (("e",), ("c",), ("a", "d"), ("b",))
    assert changes.anything


def test_equal_states_differ_in_nothing() -> None:
    changes = diff(corpus(a="1", b="2"), corpus(b="2", a="1"))
    assert not changes.anything
    assert changes.unchanged == ("a", "b")


def test_the_first_read_is_all_new_and_a_vanished_corpus_all_deleted() -> None:
    assert diff(corpus(), corpus(a="1")).new == ("a",)
    assert diff(corpus(a="1"), corpus()).deleted == ("a",)


def test_further_columns_do_not_matter() -> None:
    assert diff(corpus(a="1").with_columns(text=pl.lit("x")), corpus(a="1")).unchanged == ("a",)
