"""Threads that run frames of nested spans, in blocks, for the benches of spans."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import made_traffic as made

from micromegas.wire import Batch, Block, Process, Stream

BLOCK_EVENTS = 10_000
NAMES = ("frame", "update", "render", "draw", "physics", "audio", "network", "script")
# A frame: its spans by name, begins and ends, about as deep as programs are.
STEPS = ["0(", "1(", "4(", "4)", "7(", "6(", "6)", "7)", "1)", "2(", "3(", "3)", "3(", "3)", "2)", "5(", "5)", "0)"]
EVENT = np.dtype([("kind", "u1"), ("scope", "<u8"), ("time", "<i8")])


def dependencies() -> bytes:
    """The texts and scopes that the blocks refer to."""
    texts = b"".join(made.text_dependency(10 + number, name) for number, name in enumerate(NAMES))
    texts += made.text_dependency(1, "game::engine") + made.text_dependency(2, "src/engine.rs")
    scopes = b"".join(
        b"\x01" + np.array([100 + number, 10 + number, 1, 2], "<u8").tobytes() + np.uint32(number).tobytes()
        for number in range(len(NAMES))
    )
    return texts + scopes


class FrameThreads:
    """A process with some threads."""

    def __init__(self, threads: int) -> None:
        self._random = np.random.default_rng(1)
        self._process = made.MadeProcess(Random(1), exe="bench")
        self.streams = [
            self._process.stream("cpu", **{"thread-name": f"thread{number}", "thread-id": str(number + 1)})
            for number in range(threads)
        ]

    @property
    def process_id(self) -> str:
        return self._process.process_id

    def announcement(self) -> Batch:
        """The process and its threads."""
        streams = [Stream.decode(each.request().body) for each in self.streams]
        return Batch([Process.decode(self._process.request().body)], streams, [])

    def end_time(self, stream: made.MadeStream) -> int:
        """When (ns) the newest block of a thread ended."""
        return made.START_TIME + stream.now

    def blocks(
        self, stream: made.MadeStream, events: int, block_events: int = BLOCK_EVENTS, pace: int = 1
    ) -> list[Block]:
        """The next frames of a thread, about `events` begins and ends of spans, 10 µs times `pace` apart."""
        frame = np.zeros(len(STEPS), EVENT)
        frame["kind"] = [step[1] == ")" for step in STEPS]
        frame["scope"] = [100 + int(step[0]) for step in STEPS]
        rows = np.tile(frame, max(events // len(STEPS), 1))
        rows["time"] = stream.ticks() + np.cumsum(self._random.integers(200 * pace, 20_000 * pace, len(rows)))
        blocks = []
        for start in range(0, len(rows), block_events):
            block = rows[start : start + block_events]
            duration = int(block["time"][-1]) - stream.ticks()
            fields = stream.fields(dependencies(), block.tobytes(), len(block), duration)
            blocks.append(Block.decode(made.block_request(fields).body))
        return blocks
