"""The recorded odd and hostile inputs: each gets the right answer, is kept and reported if it can't be read, and never
hides the good stream beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.answers import records
from e2e.hostile_posts import accept, listed_errors, post
from e2e.recordings import VECTORS, Request
from e2e.serving import Service, wait_until_materialized

CASES: dict[str, dict[str, Any]] = {
    each["case"]: each["upstream"]
    for each in json.loads((VECTORS / "hostile" / "index.json").read_text(encoding="utf-8"))["cases"]
}
# Of the tiny recording, whose log stream all cases were made from.
PROCESS_ID = b"2b56adeb-f1d5-454a-9b7d-ec8340a66894"
STREAM_ID = b"1df2169f-0614-4be6-8f19-febaa9241c00"
BLOCK_IDS = (b"74e68790", b"5a0c1e7e", b"5A0C1E7E")
PROCESS_BODY = VECTORS / "tiny" / "000-insert_process.cbor"
MESSAGES = ["hello static", "hello {}", "hello dynamic é", "hello tagged 1"]
# Cases that cost the original the whole block: here a layout that can't be used only costs the events of its type, and
# a reference that leads nowhere only its event.
READABLE = {
    "objs_unresolved_ref": MESSAGES[1:],
    **dict.fromkeys(
        (
            "stream_member_overflow",
            "stream_ref_small",
            "stream_prim_i32",
            "stream_prim_bool",
            "stream_prim_usize",
            "stream_prim_size",
        ),
        MESSAGES[2:],
    ),
}


class Case:
    """A recorded hostile case under ids of its own, with a good stream beside the bad one."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.verdict = CASES[name]
        self.process_id = f"00000000-0000-4000-8000-{number:012x}"
        self.stream_id = f"00000000-0000-4000-8001-{number:012x}"
        self.good_stream_id = f"00000000-0000-4000-8002-{number:012x}"
        self.block_prefix = f"{0xB0000000 + number:08x}"
        self.good_prefix = f"{0xC0000000 + number:08x}"
        self._folder = VECTORS / "hostile" / name

    def hostile(self) -> dict[str, Request]:
        """The requests of the case by their verdict's name."""
        return {
            f"insert_{path.stem}": Request(f"/ingestion/insert_{path.stem}", self._renamed(path))
            for path in sorted(self._folder.glob("*.cbor"))
        }

    def good(self) -> list[Request]:
        """The process, and the good neighbour stream with its block."""
        good = VECTORS / "hostile" / "ok_baseline"
        requests = [
            Request(
                "/ingestion/insert_block", self._renamed(good / "block.cbor", self.good_stream_id, self.good_prefix)
            ),
            Request("/ingestion/insert_stream", self._renamed(good / "stream.cbor", self.good_stream_id)),
        ]
        if not (self._folder / "process.cbor").exists():
            requests.append(Request("/ingestion/insert_process", self._renamed(PROCESS_BODY)))
        return requests

    def _renamed(self, path: Path, stream_id: str | None = None, block_prefix: str | None = None) -> bytes:
        body = path.read_bytes().replace(PROCESS_ID, self.process_id.encode())
        body = body.replace(STREAM_ID, (stream_id or self.stream_id).encode())
        for prefix in BLOCK_IDS:
            body = body.replace(prefix, (block_prefix or self.block_prefix).encode())
        return body


@pytest.fixture(scope="module")
def cases(service: Service) -> dict[str, Case]:
    """All recorded cases, posted."""
    posted = {name: Case(name, number) for number, name in enumerate(CASES)}
    for case in posted.values():
        for verdict, request in case.hostile().items():
            [answer] = post(service, [request])
            expected = 200 if case.verdict[verdict] == "accepted" else 400
            assert answer.status == expected, (case.name, verdict, answer)
        accept(service, case.good())
    return posted


@pytest.mark.parametrize("when", ["from the tail", "from partitions"])
@pytest.mark.parametrize("view", ["log_entries", "view_instance"])
def test_recorded_cases(service: Service, cases: dict[str, Case], when: str, view: str) -> None:
    if when == "from partitions":
        wait_until_materialized(service)
    answers = {}
    for case in cases.values():
        if case.verdict.get("insert_process", "accepted") != "accepted":
            answers[case.name] = []
            continue
        table = view if view == "log_entries" else f"view_instance('log_entries', '{case.process_id}')"
        sql = f"SELECT block_id, msg FROM {table} WHERE process_id = '{case.process_id}' ORDER BY time"
        answers[case.name] = records(service.query(sql))
    errors = {block_id[:8] for block_id in listed_errors(service)}
    for case in cases.values():
        by_prefix: dict[str, list[str]] = {}
        for row in answers[case.name]:
            by_prefix.setdefault(row["block_id"][:8], []).append(row["msg"])
        if "insert_block" not in case.verdict:
            # Without an accepted process nobody can see its blocks, but they are kept.
            is_accepted = case.verdict["insert_process"] == "accepted"
            assert by_prefix.get(case.good_prefix, []) == (MESSAGES if is_accepted else []), case.name
            assert (case.good_prefix in errors) == (not is_accepted), case.name
            continue
        assert by_prefix.pop(case.good_prefix) == MESSAGES, case.name
        found = by_prefix.pop(case.block_prefix, [])
        assert not by_prefix, case.name
        if case.verdict["insert_block"] != "accepted":
            assert found == []
            assert case.block_prefix not in errors
            continue
        readable = case.verdict["events_before_error"]
        assert [text for text in found if text in MESSAGES] == READABLE.get(case.name, MESSAGES[:readable]), case.name
        assert len(found) == readable or case.name in READABLE, case.name
        assert (case.block_prefix in errors) == (case.verdict["decode"] != "accepted"), case.name


def test_recorded_processes(service: Service, cases: dict[str, Case]) -> None:
    case = cases["process_long_exe"]
    [row] = records(service.query(f"SELECT exe FROM processes WHERE process_id = '{case.process_id}'"))
    assert len(row["exe"]) == 255
