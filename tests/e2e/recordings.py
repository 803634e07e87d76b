"""The recorded traffic of real senders: request bodies, and what each sender's own parser read in them.

It must never read a body with this product's code: that is what is being tested.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cbor2

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
SCENARIOS = (
    "async",
    "images",
    "logs",
    "metrics",
    "py_encoder",
    "service",
    "spans",
    "tiny",
    "unreal_synth",
    "v010",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a sender: path and body."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RecordedBlock:
    """Header and events of a block, as the sender's own parser gave them."""

    header: dict[str, Any]
    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Recording:
    """The requests of a scenario in recorded order, and everything that they say."""

    name: str
    requests: list[Request]
    processes: dict[str, dict[str, Any]]
    streams: dict[str, dict[str, Any]]
    blocks: list[RecordedBlock]

    def renamed(self, seed: str) -> Recording:
        """The same traffic from other processes: every id is replaced, so that one lake can hold the scenario again."""
        names = {
            old: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed} {old}"))
            for old in [*self.processes, *self.streams, *(block.header["block_id"] for block in self.blocks)]
        }
        return Recording(
            self.name,
            [Request(each.path, _with_other_ids(each.body, names)) for each in self.requests],
            {names[key]: value | {"process_id": names[key]} for key, value in self.processes.items()},
            {
                names[key]: value | {"stream_id": names[key], "process_id": names[value["process_id"]]}
                for key, value in self.streams.items()
            },
            [
                RecordedBlock(
                    {
                        **block.header,
                        **{key: names[block.header[key]] for key in ("block_id", "stream_id", "process_id")},
                    },
                    block.events,
                )
                for block in self.blocks
            ],
        )


def _with_other_ids(body: bytes, names: Mapping[str, str]) -> bytes:
    # The compressed buffers stay as they are: by chance they may hold the text of an id.
    buffers = [value for value in cbor2.loads(body).get("payload", {}).values() if isinstance(value, bytes)]
    pieces = [body]
    for buffer in buffers:
        at = next(position for position, piece in enumerate(pieces) if position % 2 == 0 and buffer in piece)
        before, after = pieces[at].split(buffer, 1)
        pieces[at : at + 1] = [before, buffer, after]
    for at in range(0, len(pieces), 2):
        for old, new in names.items():
            pieces[at] = (
                pieces[at].replace(old.encode(), new.encode()).replace(old.upper().encode(), new.upper().encode())
            )
    return b"".join(pieces)


@cache
def recording(name: str) -> Recording:
    """The recording of a scenario."""
    folder = VECTORS / name
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    found = Recording(name, [], {}, {}, [])
    for entry in manifest["requests"]:
        body = (folder / entry["file"]).read_bytes()
        found.requests.append(Request(entry["path"], body))
        stem = entry["file"].removesuffix(".cbor")
        kind = entry["path"].rsplit("/", 1)[1]
        if kind == "insert_process":
            # Read here and not from the expected file, one of which is no JSON.
            process = cbor2.loads(body)
            found.processes[process["process_id"].lower()] = process | {"process_id": process["process_id"].lower()}
        elif kind == "insert_stream":
            stream = json.loads((folder / f"{stem}.expected.json").read_text(encoding="utf-8"))
            found.streams[stream["stream_id"]] = stream
        else:
            lines = list(_lines(folder / f"{stem}.expected.jsonl"))
            found.blocks.append(RecordedBlock(lines[0]["block"], lines[1:]))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    packed = path.with_name(path.name + ".gz")
    with gzip.open(packed, "rt", encoding="utf-8") if packed.exists() else path.open(encoding="utf-8") as lines:
        # Not splitlines(): messages hold U+2028 and the like.
        for line in lines:
            if line.strip():
                yield json.loads(line)
