"""`micromegas trace`: the file of a process, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.test_commands import assert_one_line_error, run
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import Service, serving

from micromegas.client import Client
from micromegas.config import LakeSettings

SCENARIO = "py_encoder"
(PROCESS,) = recording(SCENARIO).processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("trace") / "lake")) as service:
        requests = recording(SCENARIO).requests
        assert_all_accepted(requests, post_all(service.http_port, requests))
        yield address(service)


def address(service: Service) -> str:
    return f"grpc://127.0.0.1:{service.flight_port}"


def chunks(server: str, types: str) -> bytes:
    sql = (
        f"SELECT chunk_data FROM perfetto_trace_chunks('{PROCESS}', '{types}', "
        "'1980-01-01T00:00:00Z', '2100-01-01T00:00:00Z') ORDER BY chunk_id"
    )
    with Client(server) as client:
        return b"".join(client.query(sql)["chunk_data"].to_pylist())


def without_first_packets(trace: bytes) -> bytes:
    """The trace after its first two packets, which tell when it begins."""
    for _ in range(2):
        assert trace[:1] == b"\n"
        length = trace[1] if trace[1] < 0x80 else trace[1] & 0x7F | trace[2] << 7
        trace = trace[(2 if trace[1] < 0x80 else 3) + length :]
    return trace


@pytest.mark.parametrize("types", ["all", "both", "logs"])
def test_without_times_the_file_is_all_there_is(server: str, tmp_path: Path, types: str) -> None:
    output = tmp_path / "a.perfetto-trace"
    output.write_bytes(b"older")
    done = run("trace", PROCESS.upper(), "-o", str(output), "--types", types, "--server", server)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert done.stderr.decode().startswith(f"{output}: ")
    assert without_first_packets(output.read_bytes()) == without_first_packets(chunks(server, types)) != b""
    assert list(tmp_path.iterdir()) == [output]


def test_times_cut(server: str, tmp_path: Path) -> None:
    output = tmp_path / "none"
    done = run("trace", PROCESS, "-o", str(output), "--begin", "2001-01-01", "--end", "2001-01-02", "--server", server)
    assert done.returncode == 0, done.stderr
    assert without_first_packets(output.read_bytes()) == b""


@pytest.mark.parametrize(
    ("arguments", "parts", "code"),
    [
        (["nonsense"], ["nonsense is not the id of a process", "micromegas processes"], 1),
        (["00000000-0000-0000-0000-000000000001"], ["unknown process 00000000", "micromegas processes"], 1),
        ([PROCESS, "--types", "every'thing"], ["types", "every'thing", "none of thread"], 1),
        ([PROCESS, "--begin", "1h", "--end", "2h"], ["--begin lies after --end"], 2),
        ([PROCESS, "--begin", "yesterday"], ["--begin yesterday", "write an age"], 2),
        ([PROCESS, "-o", "/no/such/folder/file"], ["--output /no/such/folder/file", "No such file"], 1),
    ],
)
def test_what_can_not_be_is_one_line(
    server: str, tmp_path: Path, arguments: list[str], parts: list[str], code: int
) -> None:
    where = [] if "-o" in arguments else ["-o", str(tmp_path / "kept")]
    (tmp_path / "kept").write_bytes(b"older")
    assert_one_line_error(run("trace", *arguments, *where, "--server", server), *parts, code=code)
    assert (tmp_path / "kept").read_bytes() == b"older"
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    done = run("trace", PROCESS, "-o", str(tmp_path / "none"), "--server", "grpc://127.0.0.1:1")
    assert_one_line_error(done, "no answer from grpc://127.0.0.1:1", "micromegas serve --lake DIR", code=3)
    assert list(tmp_path.iterdir()) == []
