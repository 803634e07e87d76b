"""Histograms of one group: an accumulator holds one histogram, however many rows there are. For many groups see
`aggregates.py`, whose calls become these."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datafusion import Accumulator, SessionContext, udaf

from micromegas import _engine
from micromegas.query.functions.histograms import HISTOGRAM


def _one_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


class _SumOfRows(Accumulator):
    """The sum of a column of histograms; the first that is not NULL decides on start, end and bins."""

    def __init__(self) -> None:
        self._sum: pa.Array = pa.nulls(0, HISTOGRAM)

    def update(self, *values: pa.Array) -> None:
        self._add(values[0])

    def merge(self, states: Any) -> None:
        self._add(states[0] if isinstance(states, list) else states)

    def state(self) -> list[pa.Scalar]:
        return [self.evaluate()]

    def evaluate(self) -> pa.Scalar:
        return self._sum[0] if len(self._sum) else pa.scalar(None, HISTOGRAM)

    def _add(self, histograms: pa.Array) -> None:
        both = pa.concat_arrays([self._sum, histograms])
        self._sum = pa.array(_engine.sum_of_histograms(_one_list(both)))


class _HistogramOfRows(_SumOfRows):
    """The histogram of a column of values over bounds that are the same in all rows."""

    def update(self, *values: pa.Array) -> None:
        *bounds, column = values
        if not len(column):
            return
        any_null = pa.array([any(bound.null_count for bound in bounds)])
        starts, ends, numbers = map(_extremes, bounds)
        made = _engine.histogram_of_group(
            starts[0], starts[1], ends[0], ends[1], numbers[0], numbers[1], any_null, _one_list(column)
        )
        self._add(pa.array(made))

    def _add(self, histograms: pa.Array) -> None:
        try:
            super()._add(histograms)
        except ValueError:
            raise ValueError("histogram bounds change within a group") from None


def _extremes(bound: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The least and the greatest value; NaN if there is one, which comparisons leave out."""
    if pa.types.is_floating(bound.type) and pc.any(pc.is_nan(bound)).as_py():
        nan = pa.array([float("nan")], bound.type)
        return nan, nan
    extremes = pc.min_max(bound)
    return pa.array([extremes["min"].as_py()], bound.type), pa.array([extremes["max"].as_py()], bound.type)


_BOUNDS = [pa.float64(), pa.float64(), pa.int64()]


def register_accumulators(context: SessionContext) -> None:
    """Makes the aggregates known that calls over one group become."""
    state = [HISTOGRAM]
    context.register_udaf(udaf(_SumOfRows, [HISTOGRAM], HISTOGRAM, state, "immutable", "sum_of_rows"))
    arguments = [*_BOUNDS, pa.float64()]
    context.register_udaf(udaf(_HistogramOfRows, arguments, HISTOGRAM, state, "immutable", "histogram_of_rows"))
