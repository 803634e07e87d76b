"""`%%mmsql`: options, variables of the notebook, and tables that show what values hold, whatever it is."""

from __future__ import annotations

import html
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas
import pyarrow as pa
import pytest

from micromegas.client import StatementRefused
from micromegas.client.notebook import MAX_ROWS, RowTable, load_ipython_extension

Magic = Callable[[str, str], RowTable | None]


@pytest.fixture
def names() -> dict[str, Any]:
    """The notebook's variables."""
    return {}


@pytest.fixture
def mmsql(names: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Magic:
    """The magic as IPython would call it."""
    magics: dict[str, Magic] = {}

    def register(function: Magic, kind: str, name: str) -> None:
        magics[f"{kind} {name}"] = function

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", address)
    load_ipython_extension(SimpleNamespace(register_magic_function=register, user_ns=names))
    return magics["cell mmsql"]


def test_a_cell_is_a_statement(mmsql: Magic) -> None:
    table = mmsql("--limit 2", "SELECT value AS n, 'a$b' AS text FROM generate_series(1, 10)")
    assert table is not None
    assert table.arrow.to_pylist() == [{"n": 1, "text": "a$b"}, {"n": 2, "text": "a$b"}]
    assert (len(table), len(table.pandas()), len(table.polars())) == (2, 2, 2)
    assert repr(table).splitlines() == ["n  text", "1  a$b", "2  a$b", "2 rows"]
    every = mmsql("", "SELECT time FROM log_entries")
    recent = mmsql("--begin -1ms --end=now", "SELECT time FROM log_entries")
    assert every is not None
    assert recent is not None
    assert len(every) > len(recent) == 0


def test_placeholders_are_variables_of_the_notebook(mmsql: Magic, names: dict[str, Any]) -> None:
    names |= {"least": 8, "word": "it's"}
    assert mmsql("--into found", "SELECT value, $word AS w FROM generate_series(1, 10) WHERE value >= $least") is None
    assert isinstance(names["found"], pandas.DataFrame)
    assert names["found"]["value"].to_list() == [8, 9, 10]
    assert set(names["found"]["w"]) == {"it's"}
    with pytest.raises(NameError, match=r"\$nope"):
        mmsql("", "SELECT $nope AS n")


@pytest.mark.parametrize(
    ("line", "text"),
    [("--limit many", "limit"), ("--colour red", "usage"), ("stray", "usage"), ("--into 1x", "--into 1x")],
)
def test_what_is_wrong_with_a_line_is_told(mmsql: Magic, line: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        mmsql(line, "SELECT 1")


def test_errors_are_the_server_s(mmsql: Magic) -> None:
    with pytest.raises(StatementRefused, match="SELEC"):
        mmsql("", "SELEC 1")


def test_tables_show_values_and_never_run_them() -> None:
    hostile = "<script>alert(1)</script>"
    table = RowTable(pa.table({hostile: [hostile, None], "n": [1, 2], "raw": [b"<b>", b""]}))
    shown = table._repr_html_()
    assert "<script" not in shown
    assert shown.count(html.escape(hostile)) == 2
    assert "2 rows" in shown
    long = RowTable(pa.table({"n": range(MAX_ROWS + 1)}))
    assert long._repr_html_().count("<tr>") == MAX_ROWS + 1
    assert f"{MAX_ROWS + 1} rows, the first {MAX_ROWS} shown" in long._repr_html_()
    assert RowTable(pa.table({})).arrow.num_rows == 0
    assert repr(RowTable(pa.table({"a\x1b[2J": ["\x1b]0;title\x07"]}))).isascii()
    assert "\x1b" not in repr(RowTable(pa.table({"a\x1b[2J": ["\x1b]0;title\x07"]})))
    assert "0 rows" in repr(RowTable(pa.table({"n": pa.array([], pa.int64())})))


@pytest.mark.parametrize(
    ("line", "cell", "told"),
    [
        ("", "SELECT nothing FROM log_entries", "StatementRefused: "),
        ("--limit", "SELECT 1", "ValueError: %%mmsql: "),
        ("", "SELECT $missing", "NameError: $missing is no variable"),
    ],
)
def test_what_goes_wrong_is_told_without_frames(mmsql: Magic, line: str, cell: str, told: str) -> None:
    with pytest.raises((StatementRefused, ValueError, NameError)) as wrong:
        mmsql(line, cell)
    (shown,) = wrong.value._render_traceback_()  # type: ignore[union-attr] # what IPython looks for
    assert shown.startswith(told)
