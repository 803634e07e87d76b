"""The histogram type and the functions on it; `aggregates.py` has those that make histograms of many rows."""

import pyarrow as pa

from micromegas import _engine
from micromegas.query.functions.scalar import Argument, ScalarFunction

HISTOGRAM = pa.struct(
    [
        *(pa.field(name, pa.float64(), nullable=False) for name in ("start", "end", "min", "max", "sum", "sum_sq")),
        pa.field("count", pa.uint64(), nullable=False),
        pa.field("bins", pa.list_(pa.field("bin", pa.uint64(), nullable=False)), nullable=False),
    ]
)
"""Counts in bins of equal width over [start, end]; values beyond are in the edge bins. min, max, sum, sum_sq and count
are of all values; without any, min is the largest double and max the least."""

_HISTOGRAM = Argument("histogram", HISTOGRAM)
_VALUES = Argument("values", pa.list_(pa.float64()))

HISTOGRAM_FUNCTIONS = (
    ScalarFunction(
        "histogram_of_list",
        (Argument("start", pa.float64()), Argument("end", pa.float64()), Argument("nb_bins", pa.int64()), _VALUES),
        HISTOGRAM,
        _engine.histogram_of_list,
        "The histogram of a list of values, empty for a NULL list. An error for bounds that are NULL, not finite or "
        "reversed and for fewer than one bin.",
    ),
    ScalarFunction(
        "histogram_of_group",
        (
            *(Argument(name, pa.float64()) for name in ("min_start", "max_start", "min_end", "max_end")),
            *(Argument(name, pa.int64()) for name in ("min_bins", "max_bins")),
            Argument("any_null", pa.bool_()),
            _VALUES,
        ),
        HISTOGRAM,
        _engine.histogram_of_group,
        "What make_histogram with computed bounds becomes: as histogram_of_list, from the extremes of the bounds over "
        "the group and whether any was NULL. NULL for an empty group, an error for bounds that are not constant.",
    ),
    ScalarFunction(
        "sum_of_histograms",
        (Argument("histograms", pa.list_(HISTOGRAM)),),
        HISTOGRAM,
        _engine.sum_of_histograms,
        "The sum of a list of histograms, NULL ones skipped. An error for histograms of different start, end or bins.",
    ),
    ScalarFunction(
        "quantile_from_histogram",
        (_HISTOGRAM, Argument("ratio", pa.float64())),
        pa.float64(),
        _engine.quantile_from_histogram,
        "An estimate of the value below which the given share (0 to 1) of the values lies, interpolated within a bin.",
        "SELECT quantile_from_histogram(make_histogram(0.0, 50.0, 50, value), 0.95) AS p95 FROM measures WHERE name = "
        "'frame_time'",
    ),
    ScalarFunction(
        "variance_from_histogram",
        (_HISTOGRAM,),
        pa.float64(),
        _engine.variance_from_histogram,
        "The variance of the sample; NaN for fewer than two values.",
        "SELECT round(sqrt(variance_from_histogram(make_histogram(0.0, 50.0, 50, value))), 3) AS deviation FROM "
        "measures WHERE name = 'frame_time'",
    ),
    ScalarFunction(
        "count_from_histogram",
        (_HISTOGRAM,),
        pa.uint64(),
        _engine.count_from_histogram,
        "The number of values.",
        "SELECT count_from_histogram(make_histogram(0.0, 50.0, 50, value)) AS n FROM measures WHERE name = "
        "'frame_time'",
    ),
    ScalarFunction(
        "sum_from_histogram",
        (_HISTOGRAM,),
        pa.float64(),
        _engine.sum_from_histogram,
        "The sum of the values.",
        "SELECT sum_from_histogram(make_histogram(0.0, 50.0, 50, value)) AS total FROM measures WHERE name = "
        "'frame_time'",
    ),
)
