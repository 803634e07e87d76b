"""The rows of one running query. Dropping or closing the stream ends the work behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pyarrow as pa

from micromegas.query.errors import QueryError, classified


class QueryStream(AsyncIterator[pa.RecordBatch]):
    """Asynchronous iterator of `pyarrow.RecordBatch`, all of `schema`.

    Errors while running are raised as `QueryError` from the iteration, also after rows were delivered.
    `aclose()` must be called (or the stream exhausted); it may be called at any time and more than once.
    `release` is called at the end, with whether the work came to its end by itself; again by each further `aclose()`.
    """

    def __init__(
        self,
        schema: pa.Schema,
        stream: Any,
        keep_alive: object,
        release: Callable[[bool], None],
        *,
        limit: int | None,
        max_rows: int | None,
        deadline: float,
        timeout_s: float,
        assumes_begin: bool = False,
        shown: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    ) -> None:
        """`shown`: what to make of each batch of rows, of the same schema."""
        self.schema = schema
        self.assumes_begin = assumes_begin
        """Whether the request's assumed begin was taken: the rows may be fewer than the statement says."""
        self._stream: Any = stream
        self._keep_alive: object = keep_alive
        self._release = release
        self._has_ended = False
        self._left = limit
        self._max_rows = max_rows
        self._rows = 0
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._shown = shown

    def __aiter__(self) -> QueryStream:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        while self._stream is not None and self._left != 0:
            batch = await self._next_batch()
            if batch is None:
                self._has_ended = True
                break
            if batch.num_rows == 0:
                continue
            if self._left is not None:
                batch = batch.slice(0, self._left)
                self._left -= batch.num_rows
            self._rows += batch.num_rows
            if self._max_rows is not None and self._rows > self._max_rows:
                await self.aclose()
                raise QueryError("exhausted", f"the answer has more than {self._max_rows} rows")
            return batch if self._shown is None else self._shown(batch)
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the work and releases what the query holds."""
        # Work ends when the last reference to the engine's stream is gone.
        self._stream = None
        self._keep_alive = None
        self._release(self._has_ended)

    async def _next_batch(self) -> pa.RecordBatch | None:
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                return _in_schema((await self._stream.__anext__()).to_pyarrow(), self.schema)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            await self.aclose()
            raise QueryError("exhausted", f"the query took longer than {self._timeout_s:g} s") from None
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Panics of the engine derive from BaseException.
            await self.aclose()
            raise classified(error) from None


def portable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with view types of strings and binaries, which many clients can't read, replaced by plain ones."""
    return pa.schema([field.with_type(_portable_type(field.type)) for field in schema])


def _portable_type(data_type: pa.DataType) -> pa.DataType:
    if data_type == pa.string_view():
        return pa.string()
    if data_type == pa.binary_view():
        return pa.binary()
    if pa.types.is_list(data_type):
        return pa.list_(data_type.value_field.with_type(_portable_type(data_type.value_type)))
    if pa.types.is_large_list(data_type):
        return pa.large_list(data_type.value_field.with_type(_portable_type(data_type.value_type)))
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_portable_type(field.type)) for field in data_type])
    return data_type


def _in_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)], schema=schema
    )
