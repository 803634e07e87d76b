"""Drivers of Go, JavaScript and Rust, unchanged, from their registries."""

from __future__ import annotations

from clients.toolchains import go_program, node_command, rust_program, told
from postgres_gateway.gateway import Asked


def address(asked: Asked) -> str:
    return f"postgres://anybody@127.0.0.1:{asked.gateway.port}/micromegas"


def test_pgx_and_lib_pq(asked: Asked) -> None:
    """As Go programs and Grafana's data source ask."""
    answers = told([go_program("pgx"), address(asked), asked.process_id])
    count = str(len(asked.messages))
    for mode in ("cache statement", "cache describe", "describe exec", "exec", "simple protocol"):
        assert answers[f"types {mode}"] == "true 7 2.5 ü☃ true true [a b c] true"
        for name in ("logs", "since", "levels", "after"):
            assert answers[f"{name} {mode}"] == count, (name, mode)
        assert answers[f"any {mode}"] == "2"
        assert answers[f"ranged {mode}"] == "0"
        assert answers[f"unknown column {mode}"] == "42703"
        assert answers[f"delete {mode}"] == "25006"
        assert int(answers[f"catalogue {mode}"]) > 5
    assert answers["batch"] == f"[{count} {count} {count}]"
    assert answers["copied"] == "true true"
    assert answers["cancelled"] == "true"
    assert (answers["lib/pq"], answers["lib/pq in a transaction"]) == (count, count)
    assert answers["lib/pq version"] == "true"


def test_node_postgres(asked: Asked) -> None:
    answers = told([*node_command("node_postgres"), address(asked), asked.process_id])
    count = len(asked.messages)
    assert answers["logs"] == str(count)
    assert [answers[f"named {time}"] for time in range(3)] == [asked.messages[0]] * 3
    assert answers["since"] == str(count)
    assert answers["types"] == "true 2.5 ü☃  true a+b c object"
    assert answers["several"] == "1,1,1"
    assert answers["ranged"] == "0"
    assert answers["cursor"] == "2,2,2,1"
    assert answers["copied"] == "true"
    assert [answers[each] for each in ("unknown column", "failed", "too long")] == ["42703", "25P02", "57014"]
    assert [answers[each] for each in ("mismatch", "no number")] == ["08P01", "22P02"]
    assert answers["pool"] == "1"


def test_tokio_postgres(asked: Asked) -> None:
    answers = told([rust_program("tokio_postgres", "tokio-postgres-probe"), address(asked), asked.process_id])
    count = str(len(asked.messages))
    assert (answers["parameters"], answers["columns"]) == ("[Text]", "text")
    assert [answers[each] for each in ("logs", "since", "after")] == [count] * 3
    assert answers["types"] == '(true, 2.5, "ü☃") None true ["a", "b c"]'
    assert answers["pieces"] == "[3, 3, 1]"
    assert [answers[each] for each in ("unknown column", "failed")] == ["42703", "25P02"]
    assert [answers[each] for each in ("copied", "simple", "mismatch")] == ["true", "3", "true"]
