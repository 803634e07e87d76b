"""Every format keeps every value: nanoseconds, binary, nested, null, text that looks like markup."""

from __future__ import annotations

import base64
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from micromegas.cli.formats import FORMATS, MAX_TABLE_ROWS, writer_for
from micromegas.cli.metrics import _draw, _Source

BATCH = pa.RecordBatch.from_pydict(
    {
        "time": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "+00:00")),
        "local": pa.array([-1, None], pa.timestamp("us")),
        "n": pa.array([2**63 - 1, None]),
        "f": pa.array([float("nan"), float("-inf")]),
        "text": pa.array(['[bold]x[/] "q", ü\n', None]),
        "raw": pa.array([b"\x00\xff", None]),
        "word": pa.array(["w", None]).dictionary_encode(),
        "list": pa.array([[1, None], None]),
        "struct": pa.array([{"a": 1, "t": 1}, None], pa.struct([("a", pa.int8()), ("t", pa.timestamp("ns"))])),
        "map": pa.array([[("k", b"v")], None], pa.map_(pa.string(), pa.binary())),
        "decimal": pa.array([Decimal("1.50"), None]),
        "duration": pa.array([5, None], pa.duration("ns")),
        "flag": pa.array([True, None]),
        "nothing": pa.nulls(2),
    }
)


class Sink(io.BytesIO):
    """Keeps what was written when a writer closes it."""

    def close(self) -> None:
        pass


def written(format_name: str, *batches: pa.RecordBatch, schema: pa.Schema = BATCH.schema) -> bytes:
    sink = Sink()
    writer = writer_for(format_name, sink, schema)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return sink.getvalue()


def test_json() -> None:
    first, second = json.loads(written("json", BATCH))
    assert first == {
        "time": "2023-11-14T22:13:20.123456789Z",
        "local": "1969-12-31T23:59:59.999999000",
        "n": 2**63 - 1,
        "f": "NaN",
        "text": '[bold]x[/] "q", ü\n',
        "raw": base64.b64encode(b"\x00\xff").decode(),
        "word": "w",
        "list": [1, None],
        "struct": {"a": 1, "t": "1970-01-01T00:00:00.000000001"},
        "map": [["k", "dg=="]],
        "decimal": "1.50",
        "duration": 5,
        "flag": True,
        "nothing": None,
    }
    assert second == dict.fromkeys(BATCH.schema.names) | {"f": "-Infinity"}


def test_csv() -> None:
    table = pyarrow.csv.read_csv(
        io.BytesIO(written("csv", BATCH, BATCH)),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"time": pa.string(), "text": pa.string()}),
    )
    assert table.column_names == BATCH.schema.names
    assert table.num_rows == 4
    assert table.column("time")[0].as_py() == "2023-11-14T22:13:20.123456789Z"
    assert table.column("text")[0].as_py() == '[bold]x[/] "q", ü\n'
    assert json.loads(table.column("struct")[0].as_py()) == {"a": 1, "t": "1970-01-01T00:00:00.000000001"}


@pytest.mark.parametrize("format_name", ["arrow", "parquet"])
def test_binary_formats_are_lossless(format_name: str) -> None:
    data = io.BytesIO(written(format_name, BATCH, BATCH))
    table = pa.ipc.open_stream(data).read_all() if format_name == "arrow" else pyarrow.parquet.read_table(data)
    assert table.num_rows == 4
    for name in ("n", "text", "raw", "word", "list", "map", "flag"):
        assert table.column(name).to_pylist() == BATCH.column(name).to_pylist() * 2
    assert table.column("time").cast(pa.int64()).to_pylist()[0] == 1_700_000_000_123_456_789


def test_table_shows_markup_as_text_and_counts() -> None:
    text = written("table", BATCH).decode()
    assert "[bold]x[/]" in text
    assert "2023-11-14T22:13:20.123456789Z" in text
    assert text.rstrip().endswith("2 rows")
    assert "1 row" in written("table", BATCH.slice(0, 1)).decode().splitlines()[-1]


def test_a_long_table_says_what_it_leaves_out() -> None:
    rows = pa.RecordBatch.from_pydict({"n": list(range(MAX_TABLE_ROWS + 5))})
    last = written("table", rows, rows, schema=rows.schema).decode().rstrip().splitlines()[-1]
    assert last.startswith(f"{2 * MAX_TABLE_ROWS + 10} rows, the first {MAX_TABLE_ROWS} shown")


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_rows(format_name: str) -> None:
    data = written(format_name)
    match format_name:
        case "json":
            assert json.loads(data) == []
        case "jsonl":
            assert data == b""
        case "csv":
            assert data.decode().count("\n") == 1
        case "table":
            assert b"0 rows" in data
        case "arrow":
            assert pa.ipc.open_stream(data).read_all().schema == BATCH.schema
        case _:
            assert pyarrow.parquet.read_table(io.BytesIO(data)).num_rows == 0


def test_a_unit_does_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"time": pa.array([0], pa.timestamp("ns")), "unit": ["m\x1b[2J\ns"], "count": [1], "mean": [1.0]}
    _draw("size", pa.table(columns), _Source("", 0, 0), 1)
    assert "1 m\\x1b[2J s │" in capsys.readouterr().out


def test_what_strangers_wrote_does_not_steer_a_terminal() -> None:
    table = pa.table({"a\x1b[2J": ["\x1b]0;title\x07bell", "tab\tline\nend", "ümlaut", "\u202eright to left"]})
    sink = io.BytesIO()
    writer = writer_for("table", sink, table.schema)
    for batch in table.to_batches():
        writer.write(batch)
    writer.close()
    shown = sink.getvalue().decode()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"\x1b]0;title\x07bell" in shown
    assert "ümlaut" in shown
