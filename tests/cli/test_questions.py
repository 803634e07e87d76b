"""The commands that ask: processes, logs, views, partitions. What they print is what SQL answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.calling import call
from cli.example import IDS, example_server
from cli.test_commands import assert_one_line_error

from micromegas.wire import rfc3339_ns

PROCESS = IDS["process"]
YEAR = ("--begin", "2026-01-01", "--end", "2027-01-01")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with example_server(tmp_path_factory.mktemp("questions") / "lake") as service:
        yield f"grpc://127.0.0.1:{service.flight_port}"


def asked(server: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    done = call(*arguments, "--server", server)
    assert done.returncode == 0, done.stderr
    return done


def lines(server: str, *arguments: str) -> list[str]:
    return asked(server, *arguments).stdout.decode().splitlines()


def rows(server: str, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(asked(server, *arguments, "--json").stdout)
    return found


def test_the_server_is_told_by_flag_variable_or_profile(server: str, tmp_path: Path) -> None:
    folder = tmp_path / ".micromegas"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"profiles": {"shop": {"uri": server}}}))
    home = {"HOME": str(tmp_path)}
    for done in (
        call("processes", "--exe", "shop", "--json", "--profile", "shop", **home),
        call("processes", "--exe", "shop", "--json", MICROMEGAS_PROFILE="shop", **home),
        call("processes", "--exe", "shop", "--json", MICROMEGAS_ANALYTICS_URI=server, **home),
        call(
            "processes",
            "--exe",
            "shop",
            "--json",
            "--server",
            server,
            MICROMEGAS_ANALYTICS_URI="grpc://127.0.0.1:1",
            **home,
        ),
    ):
        assert done.returncode == 0, done.stderr
        assert [row["process_id"] for row in json.loads(done.stdout)] == [PROCESS]
    assert_one_line_error(call("processes", "--profile", "shopp", **home), "profile shopp", "shop")


def test_processes_are_found_by_parts_of_their_names(server: str) -> None:
    (process,) = rows(server, "processes", "--exe", "shop")
    assert process["process_id"] == PROCESS
    assert process["exe"] == "/opt/shop/shop"
    assert process["start_time"] == "2026-01-01T12:00:00.000000000Z"
    for found in (("--exe", "SHOP/s"), ("--username", "AN"), ("--computer", "till"), ("--exe", "sh", "--limit", "1")):
        assert rows(server, "processes", *found) == [process]
    for missed in (("--exe", "sh%p"), ("--username", "o'hara"), ("--computer", "x"), ("--limit", "0")):
        assert rows(server, "processes", *missed) == []
    assert rows(server, "processes", "--end", "2001-01-01", "--begin", "2000-01-01") == []


def test_tables_of_processes_show_seconds(server: str) -> None:
    assert any("2026-01-01T12:00:00Z " in line for line in lines(server, "processes"))


def test_logs_of_a_process_need_no_range(server: str) -> None:
    every = lines(server, "logs", PROCESS)
    assert len(every) == 6
    assert every[0] == "2026-01-01T12:00:00.001000Z INFO  shop::start: shop 1.4.2 starts"
    assert every[4].endswith('ERROR shop::orders: payment of order 17 timed out {"user_id":"u42"}')
    assert lines(server, "logs", PROCESS[:6].upper()) == every
    assert lines(server, "logs", PROCESS.replace("-", "")) == every


def test_logs_of_all_processes_name_them(server: str) -> None:
    every = lines(server, "logs", *YEAR)
    assert [line.split(" ")[3] for line in every if " INFO" in line] == ["shop[11111111]"] * 3
    assert lines(server, "logs") == []


def test_logs_are_counted_from_either_end(server: str) -> None:
    every = lines(server, "logs", PROCESS)
    assert lines(server, "logs", PROCESS, "--first", "2") == every[:2]
    assert lines(server, "logs", PROCESS, "--last", "2") == every[-2:]
    assert lines(server, "logs", PROCESS, "-n", "0") == []
    assert lines(server, "logs", PROCESS, "--begin", "2026-01-01T12:00:00.38Z") == every[3:]


def test_logs_are_filtered(server: str) -> None:
    def messages(*arguments: str) -> list[str]:
        return [row["msg"] for row in rows(server, "logs", PROCESS, *arguments)]

    assert messages("--level", "error") == ["payment of order 17 timed out"] == messages("--level", "2")
    assert len(messages("--level", "WARNING")) == 2
    assert messages("--target", "CACHE") == ["2 of 2 items found"]
    assert messages("--msg", "TIMED out", "--exe", "/shop") == ["payment of order 17 timed out"]
    assert messages("--msg", "%") == messages("--exe", "till") == []


def test_logs_in_other_formats(server: str) -> None:
    told = rows(server, "logs", *YEAR)
    assert [row["time"] for row in told] == sorted(row["time"] for row in told)
    assert rfc3339_ns(told[0]["time"]) % 1_000_000_000 == 1_000_000
    assert json.loads(told[4]["properties"]) == {"user_id": "u42"}
    assert asked(server, "logs", *YEAR, "--format", "csv").stdout.startswith(b'"process_id","exe","time"')


def test_colours_are_for_terminals_or_on_demand(server: str) -> None:
    plain = lines(server, "logs", PROCESS, "--level", "error")
    assert lines(server, "logs", PROCESS, "--level", "error", "--color", "never") == plain
    (coloured,) = lines(server, "logs", PROCESS, "--level", "error", "--color", "always")
    assert "\x1b[31mERROR" in coloured
    assert "\x1b" not in plain[0]


@pytest.mark.parametrize(
    ("arguments", "parts", "code"),
    [
        (["shop"], ["shop is not the id of a process", "micromegas processes"], 1),
        (["2222"], ["unknown process 2222", "micromegas processes"], 1),
        (["--level", "loud"], ["--level loud", "warn"], 2),
        (["--level", "7"], ["--level 7"], 2),
        (["--color", "blue"], ["--color blue", "auto"], 2),
        (["--first", "1", "--last", "1"], ["--first", "leave one out"], 2),
        (["-f", "--first", "1"], ["--first", "leave one out"], 2),
        (["-f", "--end", "now"], ["--follow has no --end"], 2),
        (["-f", "--format", "csv"], ["--format csv", "jsonl"], 2),
        (["--begin", "soon"], ["--begin soon"], 2),
    ],
)
def test_wrong_flags_of_logs_are_one_line(server: str, arguments: list[str], parts: list[str], code: int) -> None:
    assert_one_line_error(call("logs", *arguments, "--server", server), *parts, code=code)


def test_views_and_their_columns(server: str) -> None:
    views = {row["view_set_name"]: row for row in rows(server, "views")}
    assert views["log_entries"] == {
        "view_set_name": "log_entries",
        "is_table": True,
        "has_instances": True,
        "columns": 13,
    }
    assert not views["thread_spans"]["is_table"]
    columns = {row["column"]: row for row in rows(server, "views", "log_stats")}
    assert columns["target"] == {"column": "target", "type": "utf8", "nullable": True}
    assert_one_line_error(call("views", "nothing", "--server", server), "unknown view nothing", "micromegas views")


def test_partitions_in_sum_and_one_by_one(server: str) -> None:
    asked(server, "logs", PROCESS)  # makes the partition of the instance
    sums = {(row["view_set_name"], row["kind"]): row for row in rows(server, "partitions")}
    assert sums["log_entries", "global"]["rows"] == 6
    assert sums["log_entries", "instances"]["partitions"] == 1
    each = rows(server, "partitions", "log_entries", "--instance", "global")
    assert [row["rows"] for row in each if row["file_path"]] == [6]
    assert each[0]["file_path"].startswith("views/log_entries/global/")
    assert rows(server, "partitions", "log_entries", "--end", "2001-01-01") == []
    assert rows(server, "partitions", "it's") == []


def test_measures_in_sums(server: str) -> None:
    sums = {row["name"]: row for row in rows(server, "metrics", PROCESS)}
    assert sums.keys() == {"frame_time", "queue_length"}
    frames = sums["frame_time"]
    assert (frames["unit"], frames["count"], frames["min"], frames["max"]) == ("ms", 60, 14.0, 44.0)
    assert frames["sum"] == pytest.approx(frames["mean"] * 60)
    assert list(sums.values()) == rows(server, "metrics", *YEAR, "--exe", "SHOP")
    assert rows(server, "metrics", PROCESS, "--name", "frame_time", "--stats") == [frames]
    assert rows(server, "metrics", PROCESS, "--target", "nothing") == []
    assert rows(server, "metrics") == []


def test_a_measure_over_time(server: str) -> None:
    buckets = rows(server, "metrics", PROCESS, "--name", "frame_time")
    assert sum(row["count"] for row in buckets) == 60
    assert max(row["max"] for row in buckets) == 44.0
    drawing = lines(server, "metrics", PROCESS, "--name", "frame_time")
    assert drawing[0].startswith("frame_time: 60 measures from 2026-01-01T12:00:00.000Z to 2026-01-01T12:00:00.")
    assert drawing[1].startswith("44 ms │")
    assert len({row.index("│") for row in drawing[1:13]}) == 1
    assert_one_line_error(call("metrics", "--name", "o'clock", "--server", server), "no measure o'clock", "--begin")


def test_spans_by_name_and_one_by_one(server: str) -> None:
    sums = {(row["thread_name"], row["name"]): row for row in rows(server, "spans", PROCESS)}
    assert sums["main-1", "frame"] == {
        "thread_name": "main-1",
        "name": "frame",
        "count": 3,
        "total_ms": 83.0,
        "mean_ms": pytest.approx(83 / 3),
        "p95_ms": 52.0,
        "max_ms": 52.0,
    }
    assert {name for thread, name in sums if thread == "async"} == {"order", "payment", "refresh"}
    longest = rows(server, "spans", PROCESS, "--types", "thread", "--thread", "MAIN", "--longest", "--min-ms", "38")
    assert [row["name"] for row in longest] == ["main-1", "frame", "render", "draw"]
    assert [row["count"] for row in rows(server, "spans", PROCESS, "--name", "DRAW")] == [3]
    wrong = call("spans", PROCESS, "--types", "all", "--server", server)
    assert_one_line_error(wrong, "--types all", "both", code=2)


def test_what_a_server_says_does_not_steer_a_terminal(server: str) -> None:
    told = call("query", "SELECT CAST('\x1b]0;title\x07' AS INT)", "--server", server)
    assert told.returncode == 1
    assert b"\\x1b]0;title\\x07" in told.stderr
    assert not {0x1B, 0x07} & set(told.stderr)
