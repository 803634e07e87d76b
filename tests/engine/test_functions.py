"""The SQL functions as DataFusion runs them."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from engine.histogram_reference import histogram, total
from engine.jsonb_reference import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micromegas.query import QueryError, functions

DICT_JSONB = pa.dictionary(pa.int32(), pa.binary())
DICT_TEXT = pa.dictionary(pa.int32(), pa.utf8())
VALUES = [(float(index * 37 % 101) - 5.0 if index % 11 else None) for index in range(600)]
GROUPS = [index * 7 % 5 for index in range(600)]


@pytest.fixture
def context() -> SessionContext:
    made = SessionContext(
        SessionConfig(
            {
                "datafusion.sql_parser.dialect": "postgresql",
                "datafusion.sql_parser.map_string_types_to_utf8view": "false",
                "datafusion.execution.batch_size": "64",
                "datafusion.execution.target_partitions": "3",
            }
        )
    )
    functions.register(made)
    sets = [encode({"build": f"b{group}"}) for group in GROUPS]
    table = pa.table(
        {
            "g": pa.array(GROUPS, pa.int64()),
            "v": pa.array(VALUES, pa.float64()),
            "properties": pa.array(sets, pa.binary()).dictionary_encode(),
            "raw": pa.array(sets, pa.binary()),
            "msg": [f'{{"event": "e{group}"}}' for group in GROUPS],
        }
    )
    made.register_record_batches("m", [table.slice(part * 200, 200).to_batches(50) for part in range(3)])
    return made


def rows(context: SessionContext, sql: str, **parameters: pa.Scalar) -> list[dict]:
    frame = context.sql(functions.expanded(sql), param_values=parameters or None)
    return frame.to_arrow_table().to_pylist()


def expected(low: float, high: float, bins: int, keep=lambda group, value: True) -> dict:
    chosen = [value for group, value in zip(GROUPS, VALUES, strict=True) if keep(group, value)]
    return histogram(low, high, bins, chosen).row()


def test_every_function_is_registered_with_its_types(context: SessionContext):
    for function in functions.SCALARS:
        nulls = ", ".join("NULL" for _ in function.arguments)
        if function.name in ("jsonb_members", "histogram_bars"):
            nulls = "NULL, true"
        if function.name.startswith("histogram_of_list"):
            nulls = "0, 1, 1, NULL"
        result = context.sql(f"SELECT {function.name}({nulls}) AS r").to_arrow_table()
        assert result.schema.field("r").type == function.returns, function.name
        assert len(result) == 1


def test_every_function_is_described():
    for function in (*functions.SCALARS, *functions.AGGREGATES):
        assert function.description.endswith(".")
        assert function.signature.startswith(function.name)
    names = [function.name for function in (*functions.SCALARS, *functions.AGGREGATES)]
    assert len(set(names)) == len(names)


def test_property_get_filters_and_groups(context: SessionContext):
    counts = rows(context, "SELECT property_get(properties, 'BUILD') b, COUNT(*) n FROM m GROUP BY b ORDER BY b")
    assert counts == [{"b": f"b{group}", "n": 120} for group in range(5)]
    [found] = rows(context, "SELECT COUNT(*) n FROM m WHERE property_get(properties, 'build') = 'b3'")
    assert found == {"n": 120}
    [found] = rows(context, "SELECT COUNT(*) n FROM m WHERE property_get(properties, 'nope') IS NULL")
    assert found == {"n": 600}
    [found] = rows(context, "SELECT COUNT(*) n FROM m WHERE property_get(properties, $1) LIKE $2", **{
        "1": pa.scalar("build"), "2": pa.scalar("b%")
    })  # fmt: skip
    assert found == {"n": 600}


def test_property_get_keeps_dictionaries(context: SessionContext):
    table = context.sql("SELECT property_get(properties, 'build') b FROM m").to_arrow_table()
    assert table.schema.field("b").type == DICT_TEXT


def test_property_get_of_a_plain_binary_column(context: SessionContext):
    [found] = rows(
        context,
        "SELECT COUNT(DISTINCT property_get(arrow_cast(raw, 'Dictionary(Int32, Binary)'), 'build')) n FROM m",
    )
    assert found == {"n": 5}


def test_jsonb_functions_together(context: SessionContext):
    found = rows(
        context,
        "SELECT jsonb_as_string(jsonb_get(jsonb_parse(msg), 'event')) e, COUNT(*) n FROM m GROUP BY e ORDER BY e",
    )
    assert found == [{"e": f"e{group}", "n": 120} for group in range(5)]
    [found] = rows(
        context,
        "SELECT jsonb_format_json(first_value(properties)) p, properties_length(first_value(properties)) n "
        "FROM m WHERE g = 2",
    )
    assert found == {"p": '{"build":"b2"}', "n": 1}


def test_properties_to_jsonb_of_built_lists(context: SessionContext):
    [found] = rows(
        context,
        "SELECT jsonb_format_json(properties_to_jsonb(make_array("
        "named_struct('key', 'a', 'value', '1'), named_struct('key', 'a', 'value', '2')))) p",
    )
    assert found == {"p": '{"a":"2"}'}


def test_properties_to_jsonb_of_stored_lists(context: SessionContext):
    pair = pa.struct([pa.field("key", pa.utf8(), nullable=False), pa.field("value", pa.utf8(), nullable=False)])
    stored = pa.array([[{"key": "b", "value": "x"}], []], pa.list_(pa.field("Property", pair, nullable=False)))
    context.register_record_batches("old", [[pa.record_batch({"p": stored})]])
    found = rows(context, "SELECT jsonb_format_json(properties_to_jsonb(p)) j FROM old")
    assert found == [{"j": '{"b":"x"}'}, {"j": "{}"}]


def test_make_histogram(context: SessionContext):
    assert rows(context, "SELECT make_histogram(0.0, 100.0, 7, v) h FROM m") == [{"h": expected(0.0, 100.0, 7)}]
    assert rows(context, "SELECT make_histogram(0, 100, 7, CAST(v AS FLOAT)) h FROM m")[0]["h"]["count"] == 545


def test_make_histogram_of_groups_with_filters_and_having(context: SessionContext):
    found = rows(
        context,
        """SELECT g, make_histogram(-10.0, 60.0, 9, v) FILTER (WHERE v > 20) AS some, -- only some
                  MAKE_HISTOGRAM(0.0, 50.0, 3, v) every, sum(v) s
           FROM m GROUP BY g HAVING count_from_histogram(make_histogram(0.0, 50.0, 3, v)) > 1 AND g <> 4 ORDER BY g""",
    )
    assert [row["g"] for row in found] == [0, 1, 2, 3]
    for row in found:
        group = row["g"]
        some = expected(-10.0, 60.0, 9, lambda of, value, group=group: of == group and value is not None and value > 20)
        assert row["some"] == some
        every = expected(0.0, 50.0, 3, lambda of, _, group=group: of == group)
        assert row["every"] == every
        assert row["s"] == every["sum"]


def test_histograms_of_two_levels(context: SessionContext):
    [found] = rows(
        context,
        """WITH h AS (SELECT g, make_histogram(0.0, 90.0, 30, v) hist FROM m GROUP BY g)
           SELECT sum_histograms(hist) h, quantile_from_histogram(sum_histograms(hist), 0.5) median,
                  sqrt(variance_from_histogram(sum_histograms(hist))) sd,
                  count_from_histogram(sum_histograms(hist) FILTER (WHERE g < 2)) few FROM h""",
    )
    parts = [
        histogram(0.0, 90.0, 30, [value for group, value in zip(GROUPS, VALUES, strict=True) if group == of])
        for of in range(5)
    ]
    whole = total(parts)
    assert found["h"] == whole.row()
    assert found["median"] == whole.quantile(0.5)
    assert found["sd"] == math.sqrt(whole.variance())
    assert found["few"] == parts[0].count + parts[1].count


def test_histogram_with_computed_bounds(context: SessionContext):
    [found] = rows(
        context,
        """WITH b AS (SELECT MIN(v) lo, MAX(v) hi FROM m)
           SELECT make_histogram(b.lo, b.hi, 20, m.v) h FROM m CROSS JOIN b""",
    )
    assert found["h"] == expected(-5.0, 95.0, 20)
    found = rows(context, "SELECT g, make_histogram(g, g + 50, g + 1, v) h FROM m GROUP BY g ORDER BY g")
    for row in found:
        group = row["g"]
        assert row["h"] == expected(group, group + 50, group + 1, lambda of, _, group=group: of == group)
    [found] = rows(context, "SELECT make_histogram((SELECT min(v) FROM m), 95, 20, v) h FROM m")
    assert found["h"] == expected(-5.0, 95.0, 20)


def test_histogram_with_parameters(context: SessionContext):
    bounds = {"1": pa.scalar(0.0), "2": pa.scalar(100.0), "3": pa.scalar(7)}
    assert rows(context, "SELECT make_histogram($1, $2, $3, v) h FROM m", **bounds) == [{"h": expected(0.0, 100.0, 7)}]


def test_histogram_as_a_window(context: SessionContext):
    found = rows(
        context,
        "SELECT DISTINCT g, count_from_histogram(make_histogram(0.0, 1.0, 1, v) OVER (PARTITION BY g)) n "
        "FROM m ORDER BY g",
    )
    assert found == [{"g": group, "n": 109} for group in range(5)]


def test_empty_groups(context: SessionContext):
    [found] = rows(context, "SELECT make_histogram(0.0, 10.0, 2, v) h FROM m WHERE v > 1e9")
    assert found["h"] == histogram(0.0, 10.0, 2, []).row()
    [found] = rows(context, "SELECT make_histogram(0.0, 10.0, 2, v) FILTER (WHERE g > 9) h FROM m")
    assert found["h"] == histogram(0.0, 10.0, 2, []).row()
    computed = (
        "WITH b AS (SELECT 0.0 lo, 10.0 hi) SELECT make_histogram(lo, hi, 2, v) h FROM m CROSS JOIN b WHERE v > 1e9"
    )
    assert rows(context, computed) == [{"h": None}]
    assert rows(context, "SELECT make_histogram(0.0, 10.0, 2, v) h FROM m WHERE g > 9 GROUP BY g") == []
    inner = "SELECT g, make_histogram(0, 1, 1, v) h FROM m GROUP BY g"
    assert rows(context, f"SELECT sum_histograms(h) s FROM ({inner}) WHERE g > 9") == [{"s": None}]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("make_histogram(0.0, 100.0, 0, v)", "histogram of 0 bins"),
        ("make_histogram(NULL, 100.0, 5, v)", "histogram (bound|start) is NULL"),
        ("make_histogram(100.0, 0.0, 5, v)", "is above its end"),
        ("make_histogram('nan'::double, 1.0, 5, v)", "not both finite|change within a group"),
        ("make_histogram(v, 100.0, 5, v)", "histogram bound is NULL"),
        ("make_histogram(n, 100.0, 5, v)", "change within a group"),
        ("make_histogram(0.0, 100.0 + n / 64, 5, v)", "change within a group"),
        (
            "make_histogram(CASE WHEN n = 7 THEN 'nan'::double ELSE 1.0 END, 100.0, 5, v)",
            "not both finite|change within",
        ),
    ],
)
@pytest.mark.parametrize("grouping", ["", "GROUP BY v IS NULL AND v IS NOT NULL"])
def test_wrong_bounds_fail_the_query(context: SessionContext, call: str, message: str, grouping: str):
    with pytest.raises(Exception, match=message):
        rows(context, f"SELECT {call} FROM (SELECT *, row_number() OVER () - 1 AS n FROM m) {grouping}")


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.none() | st.floats(-20, 120), max_size=300),
    batch_rows=st.integers(1, 40),
    bounds=st.tuples(st.integers(-10, 50), st.integers(0, 60), st.integers(1, 9)),
    keep=st.integers(0, 4),
)
def test_one_group_is_as_one_of_many(
    values: list[float | None], batch_rows: int, bounds: tuple[int, int, int], keep: int
):
    low, high, bins = float(bounds[0]), float(bounds[0] + bounds[1]), bounds[2]
    context = SessionContext(SessionConfig({"datafusion.sql_parser.dialect": "postgresql"}))
    functions.register(context)
    table = pa.table(
        {"v": pa.array(values, pa.float64()), "n": range(len(values)), "lo": [low] * len(values)},
        schema=pa.schema([("v", pa.float64()), ("n", pa.int64()), ("lo", pa.float64())]),
    )
    empty = pa.RecordBatch.from_pylist([], table.schema)
    context.register_record_batches("t", [[*table.to_batches(batch_rows), empty], [empty]])
    kept = [value for place, value in enumerate(values) if place % 5 >= keep]
    expected = histogram(low, high, bins, kept).row()
    literal = f"make_histogram({low}, {high}, {bins}, v)"
    for call in (
        f"{literal} FILTER (WHERE n % 5 >= {keep})",
        f"{literal} FILTER (WHERE n % 5 >= {keep} AND lo = {low})",
    ):
        [found] = rows(context, f"SELECT {call} AS h FROM t")
        assert near(found["h"], expected)
    [found] = rows(context, f"SELECT make_histogram(lo, {high}, {bins}, v) AS h FROM t WHERE n % 5 >= {keep}")
    assert near(found["h"], expected) if kept else found["h"] is None
    per_row = f"SELECT make_histogram({low}, {high}, {bins}, v) AS h FROM t WHERE n % 5 >= {keep} GROUP BY n"
    [found] = rows(context, f"SELECT sum_histograms(h) AS h FROM ({per_row})")
    assert near(found["h"], expected) if kept else found["h"] is None


def near(found: dict, expected: dict) -> bool:
    """Equal but for the order in which numbers were added."""
    sums = ("sum", "sum_sq")
    return {key: value if key not in sums else None for key, value in found.items()} == {
        key: value if key not in sums else None for key, value in expected.items()
    } and all(math.isclose(found[key], expected[key], rel_tol=1e-9, abs_tol=1e-9) for key in sums)


def test_unlike_histograms_fail_the_query(context: SessionContext):
    with pytest.raises(Exception, match="can't be summed"):
        rows(context, "SELECT sum_histograms(h) FROM (SELECT make_histogram(0.0, g + 1.0, 2, v) h FROM m GROUP BY g)")


def test_the_column_of_an_unnamed_call_can_be_read(context: SessionContext):
    table = context.sql(functions.expanded("SELECT g, make_histogram(0.0, 1.0, 1, v) FROM m GROUP BY g LIMIT 1"))
    assert table.to_arrow_table().num_columns == 2


CALLS = st.sampled_from(
    [
        "make_histogram(0, 1, 2, v)",
        "make_histogram(0, 1, 2, v) FILTER (WHERE v > 1)",
        "count_from_histogram(make_histogram(0, 1, 2, v) FILTER (WHERE v > 1)) + 1",
        "make_histogram(0, 1, 2, v)['count']",
        "CASE WHEN make_histogram(0, 1, 2, v) IS NULL THEN 1 END",
        "(make_histogram(0, 1, 2, v))",
        "(SELECT make_histogram(0, 1, 2, v) FILTER (WHERE v > 1) FROM m)",
        "quantile_from_histogram((SELECT sum_histograms(h) FROM (SELECT make_histogram(0, 1, 2, v) h FROM m)), 0.5)",
        "(SELECT count(*) FROM expand_histogram((SELECT make_histogram(0, 1, 2, v) FROM m)) x)",
        "EXISTS (SELECT sum_histograms(h) FROM (SELECT make_histogram(0, 1, 2, v) h FROM m GROUP BY g))",
        "count(*)",
    ]
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CALLS, st.booleans()), min_size=1, max_size=4, unique_by=lambda item: item[0]), st.booleans())
def test_what_is_expanded_can_be_parsed(context: SessionContext, calls: list[tuple[str, bool]], distinct: bool):
    items = [f"{call} AS c{place}" if is_named else call for place, (call, is_named) in enumerate(calls)]
    sql = f"SELECT {'DISTINCT ' if distinct else ''}{', '.join(items)} FROM m"
    names = context.sql(functions.expanded(sql)).schema().names
    for place, (call, is_named) in enumerate(calls):
        if is_named:
            assert names[place] == f"c{place}"
        elif not call.endswith("END") and call != "count(*)":
            assert names[place] == call


def test_wrong_calls():
    for sql, message in {
        "SELECT make_histogram(1, 2, 3) FROM m": "3 arguments given, 4 expected",
        "SELECT make_histogram() FROM m": "0 arguments given, 4 expected",
        "SELECT make_histogram(1, , 3, v) FROM m": "an argument is missing",
        "SELECT sum_histograms(DISTINCT h) FROM m": "sum_histograms takes no DISTINCT",
    }.items():
        with pytest.raises(QueryError, match=message) as caught:
            functions.expanded(sql)
        assert caught.value.kind == "invalid"
