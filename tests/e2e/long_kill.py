"""The kill test for as long as one likes, on both back ends:  python tests/e2e/long_kill.py --rounds 200 --seed 7"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.kill_rounds import Fate, KillRounds
from servers.lakes import remote_lake
from servers.postgres import running_postgres
from servers.s3 import running_s3

from micromegas.config import LakeSettings

BACKENDS = ("sqlite+folder", "postgres+s3")


@contextmanager
def new_lake(backend: str) -> Iterator[LakeSettings]:
    """Settings of an empty lake."""
    if backend == "sqlite+folder":
        with tempfile.TemporaryDirectory(prefix="micromegas-kill-") as folder:
            yield LakeSettings(lake_dir=Path(folder))
        return
    with running_postgres() as postgres, running_s3() as s3, remote_lake(postgres, s3) as settings:
        yield settings


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill a server at random instants; check that no row is lost or doubled."
    )
    parser.add_argument("--rounds", type=int, default=100, help="kills per back end (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all chance (default: 1)")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: both")
    arguments = parser.parse_args()
    failed = 0
    for backend in arguments.backend or BACKENDS:
        with new_lake(backend) as settings:
            killing = KillRounds(settings, arguments.seed)
            try:
                killing.run(arguments.rounds)
                killing.check_everywhere()
                outcome = "nothing lost, nothing doubled"
            except AssertionError as error:
                outcome = f"FAILED: {error}"
                failed = 1
            finally:
                killing.close()
            ledger = killing.ledger
            print(
                f"{backend}: {arguments.rounds} kills, seed {arguments.seed}: "
                f"{ledger.count(Fate.ACKNOWLEDGED)} blocks acknowledged, {ledger.count(Fate.UNANSWERED)} unanswered, "
                f"{sum(len(rows) for _, rows in ledger.rows.values())} rows, {ledger.reads} reads in between; {outcome}"
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
