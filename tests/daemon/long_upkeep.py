"""Busy daemons and administrators killed for as long as one likes, on both back ends, while days pass:
python tests/daemon/long_upkeep.py --rounds 50 --seed 3"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from daemon.upkeep_rounds import UpkeepRounds
from e2e.long_kill import BACKENDS, new_lake


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill busy daemons; check that no row is lost, doubled or leaked.")
    parser.add_argument("--rounds", type=int, default=30, help="rounds per back end (default: 30)")
    parser.add_argument("--processes", type=int, default=3, help="killed in each round (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all chance (default: 1)")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: both")
    arguments = parser.parse_args()
    failed = 0
    for backend in arguments.backend or BACKENDS:
        with new_lake(backend) as settings, UpkeepRounds(settings, arguments.seed) as rounds:
            try:
                rounds.run(arguments.rounds, arguments.processes)
                rounds.finish()
                outcome = "nothing lost, doubled or leaked"
            except AssertionError as error:
                traceback.print_exc()
                outcome = f"FAILED: {error}"
                failed = 1
            kills = arguments.rounds * arguments.processes
            print(f"{backend}: {kills} kills, seed {arguments.seed}: {rounds.sent} blocks; {outcome}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
