"""What a scalar function of ours is: SQL name, Arrow types and a native kernel. Must never work on rows in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from datafusion import SessionContext, udf

DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())
"""The type of text results: few distinct values over many rows."""

DICT_JSONB = pa.dictionary(pa.int32(), pa.binary())
"""The type of property sets and other JSONB values in columns."""

ANY_JSONB = pa.binary_view()
"""The type of JSONB arguments: a signature has one type, and this is the one that dictionaries and plain binaries of
every width are cast to. The views of a dictionary's rows share its values, which the kernels see: nothing is copied,
and equal rows are still looked at once."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A named argument. Other types are coerced where DataFusion knows how, otherwise planning refuses the call."""

    name: str
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class ScalarFunction:
    """A function of one row.

    `kernel` takes one Arrow array per argument, all of one length, and returns an object with `__arrow_c_array__` of
    that length and of type `returns`; it raises `ValueError` for values that it cannot work on, which fails the query.
    """

    name: str
    arguments: tuple[Argument, ...]
    returns: pa.DataType
    kernel: Callable[..., Any]
    description: str
    example: str | None = None
    """A statement for docs/functions.md, see tools/functions_page.py. None: what calls of other functions become, which
    the page leaves out."""
    volatility: Literal["immutable", "stable", "volatile"] = "immutable"
    """Whether equal arguments give equal results always, within a statement, or never; only the first is folded."""
    optional: int = 0
    """How many of the last arguments may be left out, and are NULL then: see `expanded`."""

    def register(self, context: SessionContext) -> None:
        """Makes the function known under its name, in place of one that had it."""
        types = [argument.type for argument in self.arguments]
        context.register_udf(udf(self.kernel, types, self.returns, self.volatility, self.name))

    @property
    def signature(self) -> str:
        """`name(argument, …)` as users write it."""
        names = [argument.name for argument in self.arguments]
        needed = len(names) - self.optional
        return f"{self.name}({', '.join(names[:needed])}{''.join(f'[, {name}]' for name in names[needed:])})"
