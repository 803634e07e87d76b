"""The clients of Java, Go and Rust, and Grafana's: unchanged, from their registries, on both back ends."""

from __future__ import annotations

from clients.toolchains import go_program, java_command, rust_program, told
from e2e.recordings import recording
from e2e.serving import Service

LOGS = recording("logs")
(PROCESS,) = LOGS.processes
N_LOGS = sum(len(block.events) for block in LOGS.blocks if "log" in block.header["tags"])
GLOBAL_VIEWS = {"blocks", "log_entries", "measures", "processes", "streams"}


def endpoint(service: Service) -> str:
    return f"127.0.0.1:{service.flight_port}"


def test_jdbc(service: Service) -> None:
    assert_jdbc_is_served(told([*java_command("java"), jdbc_url(service), PROCESS]))


def assert_jdbc_is_served(answers: dict[str, str]) -> None:
    assert answers["types"] == "1 2.5 ü☃ true null 123456789 12.34 2026-01-02 word view 2"
    assert answers["logs"] == str(N_LOGS)
    assert int(answers["views"]) > 0
    assert answers["level 6"] == f"[[{N_LOGS}]]"
    assert answers["level 0"] == "[[0]]"
    assert 0 < int(answers["level 2"].strip("[]")) < N_LOGS
    assert answers["ranged"] == "[[0]]"
    assert "nothing" in answers["wrong"]
    assert "not supported" in answers["update"]
    # the catalogue
    assert answers["product"] == "Micromegas Flight SQL Server"
    assert answers["read only"] == "true"
    assert (answers["catalogs"], answers["table types"]) == ("[[]]", "[[table]]")
    assert names(answers["tables"]) >= GLOBAL_VIEWS
    assert names(answers["l% tables"]) == {"log_entries", "log_stats"}
    assert {"time", "level", "msg"} <= names(answers["columns"])
    assert {answers[each] for each in ("keys", "imported", "exported", "crossed")} == {"[]"}
    assert int(answers["getters"]) > 100
    assert answers["failed getters"] == "{}"


def jdbc_url(service: Service, more: str = "") -> str:
    return f"jdbc:arrow-flight-sql://{endpoint(service)}/?useEncryption=false{more}"


def names(text: str) -> set[str]:
    """The members of a list as Java prints it."""
    return set(text.strip("[]").split(", "))


def test_grafana(service: Service) -> None:
    answers = told([go_program("grafana"), endpoint(service), "", PROCESS])
    assert_grafana_is_served(answers)
    assert "signed in" not in answers


def assert_grafana_is_served(answers: dict[str, str]) -> None:
    assert answers["health"] == "1"
    assert answers["logs"] == str(N_LOGS)
    assert answers["limited"] == "2"
    assert answers["long"] == "20000"
    assert answers["binned"] == "true"
    assert (answers["readable"], answers["binned readable"]) == ("all", "all")
    assert answers["infos"] == "5"
    assert set(answers["tables"].split()) >= GLOBAL_VIEWS
    assert int(answers["columns"]) > 10
    assert "nothing" in answers["wrong"]


def test_go(service: Service) -> None:
    answers = told([go_program("go"), endpoint(service), PROCESS])
    assert answers["logs"] == str(N_LOGS)
    assert answers["schema"] == "true"
    assert answers["parameters"] == "utf8 int32"
    assert (answers["level 6"], answers["level 0"]) == (str(N_LOGS), "0")
    assert [answers[each] for each in ("catalogs", "schemas", "table types", "types", "keys")] == [
        "1",
        "1",
        "1",
        "0",
        "0",
    ]
    assert answers["infos"] == "true"
    assert answers["session errors"] == "0"
    assert answers["cancel"] == "CANCEL_STATUS_CANCELLED"
    assert "cancelled on request" in answers["cancelled"]
    assert "nothing" in answers["wrong"]
    assert "read-only" in answers["update"]


def test_rust(service: Service) -> None:
    answers = told([rust_program("rust", "flight-probe"), f"http://{endpoint(service)}", PROCESS])
    assert answers["logs"] == str(N_LOGS)
    assert answers["parameters"] == "Utf8 Int32"
    assert (answers["level 6"], answers["level 0"]) == (str(N_LOGS), "0")
    count, kind = answers["dictionaries"].split(" ", 1)
    assert int(count) >= N_LOGS
    assert kind == "Dictionary(Int32, Utf8)"
    assert set(answers["tables"].split()) == {"log_entries", "log_stats"}
    assert (answers["infos"], answers["catalogs"]) == ("2", "1")
    assert "nothing" in answers["wrong"]
    assert "read-only" in answers["update"]
