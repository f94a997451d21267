"""The two indexes on a table, for words and for vectors, such that searching them does not tell how they came about.

Full text: made anew whenever rows changed. Updating it would leave the statistics of deleted rows in BM25 (measured: no score
the same) unless the data files were rewritten as well; making it anew takes 4 s for 100,000 chunks and gives the scores
of an index built from scratch, to the last bit. Vectors: updated, since all partitions are probed and hits are refined.
"""

from typing import TYPE_CHECKING, Any

from llmops_core.errors import ConfigError
from llmops_core.vectors.rows import SEARCH_TEXT, VECTOR
from llmops_core.vectors.storage import conflict, sole_writer

if TYPE_CHECKING:
    from lance import LanceDataset

LANGUAGES = (
    "Arabic", "Danish", "Dutch", "English", "Finnish", "French", "German", "Greek", "Hungarian", "Italian", "Norwegian",
    "Portuguese", "Romanian", "Russian", "Spanish", "Swedish", "Tamil", "Turkish", "Other",
)  # fmt: skip
"""Languages with stemming and stop words in LanceDB. `Other`: words as ICU finds them, also where no spaces lie between
words (Chinese, Japanese, Thai), unstemmed."""

ROWS_PER_PARTITION = 1_000
# The centroids, and the bounds of the scalar quantisation, are trained again when the table has outgrown them.
OUTGROWN = 2
_FULL_TEXT = "full_text_"
_IVF = "ivf_sq_"


def full_text_options(language: str) -> dict[str, Any]:
    """Options of the full-text index; raises `ConfigError` for a language that LanceDB does not know."""
    if language not in LANGUAGES:
        raise ConfigError(
            f"retrieval.language: the full-text index knows no {language!r}. Allowed: {', '.join(LANGUAGES)}"
            " (Other: any language, without stemming)"
        )
    common = {"lower_case": True, "ascii_folding": True, "with_position": False}
    if language == "Other":
        return common | {"base_tokenizer": "icu", "stem": False, "remove_stop_words": False}
    return common | {"base_tokenizer": "simple", "language": language, "stem": True, "remove_stop_words": True}


def kind_of(dataset: "LanceDataset") -> str:
    """`ivf_sq` or `flat`."""
    return "ivf_sq" if _names(dataset, _IVF) else "flat"


def has_indexes(dataset: "LanceDataset", language: str, ann_from_rows: int) -> bool:
    """Whether a finished version has the indexes that these settings ask for."""
    kind = "ivf_sq" if dataset.count_rows() >= ann_from_rows else "flat"
    return _names(dataset, _FULL_TEXT) == [_full_text_name(language)] and kind_of(dataset) == kind


def make_indexes(where: object, dataset: "LanceDataset", language: str, ann_from_rows: int) -> None:
    """Bring both indexes up to the rows; raises `ConflictError` if another build came between."""
    rows = dataset.count_rows()
    _full_text(where, dataset, language)
    if rows < ann_from_rows:
        _drop(where, dataset, _names(dataset, _IVF))
    else:
        _vectors(where, dataset, rows)
    if any(index.num_rows_indexed != rows for index in dataset.describe_indices()):
        raise conflict(where)


def _full_text(where: object, dataset: "LanceDataset", language: str) -> None:
    name = _full_text_name(language)
    _drop(where, dataset, [other for other in _names(dataset, _FULL_TEXT) if other != name])
    with sole_writer(where, dataset, commits=1):
        dataset.create_scalar_index(SEARCH_TEXT, "INVERTED", name=name, replace=True, **full_text_options(language))


def _vectors(where: object, dataset: "LanceDataset", rows: int) -> None:
    present = _names(dataset, _IVF)
    # The name says how many rows it was trained on.
    trained = [int(name.removeprefix(_IVF)) for name in present]
    if trained and trained[0] / OUTGROWN <= rows <= trained[0] * OUTGROWN:
        with sole_writer(where, dataset, commits=1):
            dataset.optimize.optimize_indices(index_names=present)
        return
    _drop(where, dataset, present)
    partitions = max(1, rows // ROWS_PER_PARTITION)
    with sole_writer(where, dataset, commits=1):
        dataset.create_index(VECTOR, "IVF_SQ", name=f"{_IVF}{rows}", metric="cosine", num_partitions=partitions)


def _drop(where: object, dataset: "LanceDataset", names: list[str]) -> None:
    for name in names:
        with sole_writer(where, dataset, commits=1):
            dataset.drop_index(name)


def _full_text_name(language: str) -> str:
    return f"{_FULL_TEXT}{language.lower()}"


def _names(dataset: "LanceDataset", prefix: str) -> list[str]:
    return [index.name for index in dataset.describe_indices() if index.name.startswith(prefix)]
