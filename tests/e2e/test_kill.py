"""kill -9 of the server at random instants while blocks arrive: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import pytest
from e2e.kill_rounds import Fate, KillRounds

from micromegas.config import LakeSettings

ROUNDS = 10


@pytest.mark.parametrize("seed", [1])
def test_killed_server_loses_and_doubles_nothing(lake_backend: LakeSettings, seed: int) -> None:
    killing = KillRounds(lake_backend, seed)
    try:
        killing.run(ROUNDS)
        assert killing.ledger.count(Fate.ACKNOWLEDGED) > ROUNDS
        assert killing.ledger.reads > 0
        killing.check_everywhere()
    finally:
        killing.close()
