"""Putting rows in order of time, and taking out of dictionaries what no row uses. Must never add or drop a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def in_time_order(rows: pa.Table, column: str) -> pa.Table:
    """The rows in ascending order of a timestamp column without NULLs; equal times keep their order."""
    times = rows[column].cast(pa.int64()).to_numpy()
    if len(times) < 2 or bool(np.all(times[:-1] <= times[1:])):
        return rows
    return rows.take(pa.array(np.argsort(times, kind="stable")))


def used_dictionary_values(rows: pa.Table) -> pa.Table:
    """The same rows; dictionaries hold only values that occur, in order of appearance. One chunk per column at most."""
    for position, field in enumerate(rows.schema):
        if not pa.types.is_dictionary(field.type) or rows.num_rows == 0:
            continue
        column = rows.column(position).combine_chunks()
        used = pc.dictionary_encode(column.indices, null_encoding="mask")
        if len(used.dictionary) == len(column.dictionary):
            continue
        indices = used.indices.cast(field.type.index_type)
        values = column.dictionary.take(used.dictionary)
        rows = rows.set_column(position, field, pa.DictionaryArray.from_arrays(indices, values))
    return rows
