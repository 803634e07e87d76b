"""What EXPLAIN shows of the files that a plan reads: their names within the lake. Where a server keeps its files is
nobody's business, and the long paths hide the rest."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

_PLAN = "plan"
_UNSTORED = "unstored/"


class ShownPlans:
    """Shortens the paths of a lake's objects, and those of the files that hold rows of one query."""

    def __init__(self, object_url: str, object_path: str, scratch: Path) -> None:
        """`object_url`: of the object `object_path`, as the engine is given it."""
        root = unquote(urlsplit(object_url).path).strip("/").removesuffix(object_path)
        # the engine shows no slash before a path, which stands in a list or as the label of a measure
        begin = r"(?<=[\[\s=])"
        self._objects = re.compile(begin + re.escape(root)) if root else None
        self._spooled = re.compile(begin + re.escape(str(scratch).strip("/")) + r"/[^/\]]+/")

    def shortened(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of an EXPLAIN with shorter plans."""
        index = batch.schema.get_field_index(_PLAN)
        if index < 0:
            return batch
        field = batch.schema.field(index)
        texts = pa.array([self._short(text) for text in batch.column(index).to_pylist()], field.type)
        return batch.set_column(index, field, texts)

    def _short(self, text: str | None) -> str | None:
        if text is None:
            return None
        text = self._spooled.sub(_UNSTORED, text)
        return text if self._objects is None else self._objects.sub("", text)
