"""The rows of an index: which columns they have, and how a frame of chunks with vectors becomes them.

What is searched by words is what is embedded (title, heading path and text), so that both modes find a chunk by its heading.
Letters are composed there: full text would cut a word at a separate accent, which some PDFs have in every й.
"""

import hashlib
import unicodedata

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

from llmops_core.chunks.chunk import embedded_text
from llmops_core.errors import InvalidRequestError

COLUMNS = ("chunk_id", "document_id", "title", "heading_path", "text", "char_start", "char_end")
"""What a row says of its chunk, and what a hit is made of."""
SEARCH_TEXT = "search_text"
"""The column of the full-text index."""
VECTOR = "vector"
ROW_HASH = "row_hash"

# Part of every row hash: raise it when `search_text` is made in another way, and each row is written anew once.
_FORMAT = "2"
_CHUNK_TYPES: dict[str, pl.DataType] = {
    "chunk_id": pl.String(),
    "document_id": pl.String(),
    "title": pl.String(),
    "heading_path": pl.List(pl.String()),
    "text": pl.String(),
    "char_start": pl.Int64(),
    "char_end": pl.Int64(),
}


def arrow_schema(dimension: int) -> pa.Schema:
    """The table's schema, for vectors of `dimension` float32."""
    return pa.schema(
        [
            pa.field("chunk_id", pa.string(), nullable=False),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("heading_path", pa.list_(pa.string()), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("char_start", pa.int64(), nullable=False),
            pa.field("char_end", pa.int64(), nullable=False),
            pa.field(SEARCH_TEXT, pa.string(), nullable=False),
            pa.field(ROW_HASH, pa.string(), nullable=False),
            pa.field(VECTOR, pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def with_row_hash(batch: pl.DataFrame) -> pl.DataFrame:
    """Keep the columns of an index and add `row_hash`: a hash of everything but the vector.

    A chunk whose place in its document moved gets another hash, so its row is written again, with the vector that it had.
    Raises `InvalidRequestError` if a column is missing or has values of another type.
    """
    try:
        rows = batch.select(*(pl.col(name).cast(dtype) for name, dtype in _CHUNK_TYPES.items()), VECTOR)
    except PolarsError as error:
        raise InvalidRequestError(
            f"Rows of an index need the columns {', '.join((*COLUMNS, VECTOR))}; given were"
            f" {', '.join(batch.columns)}: {error}"
        ) from error
    rows = rows.with_columns(pl.col("title", "text").fill_null(""), pl.col("heading_path").fill_null([]))
    lines = rows.select(pl.struct(COLUMNS).struct.json_encode()).to_series()
    hashes = [hashlib.sha256(f"{_FORMAT}{line}".encode()).hexdigest()[:32] for line in lines]
    return rows.with_columns(pl.Series(ROW_HASH, hashes, dtype=pl.String))


def dimension_of(rows: pl.DataFrame) -> int:
    """Numbers in the first vector."""
    first = rows[VECTOR][0]
    return 0 if first is None else len(first)


def to_arrow(rows: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """Make the record batch that is written; raises `InvalidRequestError` for a vector that cannot be compared."""
    searched = [
        composed(embedded_text(title, tuple(headings), text))
        for title, headings, text in rows.select("title", "heading_path", "text").iter_rows()
    ]
    frame = rows.drop(VECTOR).with_columns(pl.Series(SEARCH_TEXT, searched, dtype=pl.String))
    table = frame.to_arrow().append_column(VECTOR, _vectors(rows, schema.field(VECTOR).type))
    return table.select(schema.names).cast(schema).combine_chunks().to_batches()[0]


def composed(text: str) -> str:
    """A text as full text indexes and searches it: each letter with its accents is one character (NFC)."""
    return unicodedata.normalize("NFC", text)


def _vectors(rows: pl.DataFrame, wanted: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    """Vectors as a fixed-size list: none missing, all of one length, finite, and not zero (which has no direction)."""
    lengths = rows[VECTOR].cast(pl.List(pl.Float32)).list.len()
    _refuse(rows, (lengths != wanted.list_size).fill_null(True), f"does not have {wanted.list_size} numbers")
    flat = rows[VECTOR].explode().cast(pl.Float32).to_numpy()
    squares = np.einsum("ij,ij->i", *[flat.reshape(rows.height, wanted.list_size).astype(np.float64)] * 2)
    _refuse(rows, pl.Series(~np.isfinite(squares) | (squares == 0)), "is zero or has numbers that are not finite")
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), wanted.list_size)


def _refuse(rows: pl.DataFrame, bad: pl.Series, why: str) -> None:
    if bad.any():
        chunk_id = rows.filter(bad)["chunk_id"][0]
        raise InvalidRequestError(
            f"The vector of chunk {chunk_id} {why} ({bad.sum()} such in this batch). Embed the chunks again: llmops build"
        )
