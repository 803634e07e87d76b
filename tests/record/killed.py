"""Runs of `kill_writer.py` that were killed, and what must be found of them afterwards."""

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SLOTS = 6
"""Writers, each with numbers of its own."""


@dataclass
class Found:
    """What arrived of a run, by the writer; spans by whether they begin, and name."""

    logs: dict[int, list[int]] = field(default_factory=dict)
    measures: dict[int, list[int]] = field(default_factory=dict)
    spans: Counter[tuple[bool, str]] = field(default_factory=Counter)
    counted: float = 0

    def add_log(self, message: str) -> None:
        """Of a writer, or of somebody else."""
        if found := re.fullmatch(r"(\d+) of (\d)", message):
            self.logs.setdefault(int(found[2]), []).append(int(found[1]))

    def add_measure(self, name: str, value: float) -> None:
        if name == "c":
            self.counted += value
        elif found := re.fullmatch(r"m(\d)", name):
            self.measures.setdefault(int(found[1]), []).append(int(value))


class Killed:
    """A run of `kill_writer.py`, killed after so many seconds, and what it had told by then."""

    def __init__(self, url: str, folder: Path, seed: int, seconds: float) -> None:
        self.seed = seed
        told = folder / f"told-{seed}"
        told.write_bytes(bytes(8 * 10))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        environment |= {
            "MICROMEGAS_TELEMETRY_URL": url,
            "MICROMEGAS_SPOOL_DIR": str(folder / "spool"),
            "MICROMEGAS_SYSTEM_METRICS": "off",
            "MICROMEGAS_PROCESS_PROPERTIES": f"seed={seed}",
        }
        program = Path(__file__).with_name("kill_writer.py")
        process = subprocess.Popen([sys.executable, str(program), str(told), str(seed)], env=environment)
        try:
            deadline = time.monotonic() + 60
            while not all(self.read(told)[slot] for slot in (*range(SLOTS), 8)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(seconds)
        finally:
            process.kill()
            child = self.read(told)[8]
            if child:
                os.kill(child, signal.SIGKILL)
            process.wait()
        self.told = self.read(told)

    @staticmethod
    def read(told: Path) -> tuple[int, ...]:
        return struct.unpack("10q", told.read_bytes())

    def check(self, found: Found) -> None:
        for slot in range(SLOTS):
            told = self.told[slot]
            # Each number once; at most one more than was told, since it is told after it was recorded.
            assert sorted(found.logs[slot]) in (list(range(told)), list(range(told + 1))), (self.seed, slot)
            assert sorted(found.measures[slot]) in (list(range(told)), list(range(told + 1))), (self.seed, slot)
            for begins in (True, False):
                assert found.spans[begins, f"s{slot}"] in (told, told + 1), (self.seed, slot)
        told = self.told[6] + self.told[7]
        assert told <= found.counted <= told + 2, self.seed
