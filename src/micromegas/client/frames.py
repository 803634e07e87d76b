"""Answers as data frames of pandas and polars, which are imported when somebody asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Times keep their nanoseconds; dictionaries of texts and numbers become categories, those of anything else, of
    which there are no categories, their values."""
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and pa.types.is_nested(field.type.value_type):
            table = table.set_column(number, field.with_type(field.type.value_type), _decoded(table.column(number)))
    return table.to_pandas()


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Times keep their nanoseconds; dictionaries of texts become categories."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("polars is not installed: run  pip install polars", name=error.name) from None
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks: list[Any] = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, type=column.type.value_type)
