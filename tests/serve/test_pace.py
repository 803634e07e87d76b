"""Long answers wait a little where short ones are asked for, and only there."""

from __future__ import annotations

import itertools

from micromegas.serve.flight.pace import LONG_BYTES, RECENT_S, Pace

FRAME = 2 * 1024 * 1024


class Server:
    def __init__(self) -> None:
        self.now = 0.0
        self.pace = Pace(lambda: self.now)


def test_a_short_answer_never_waits() -> None:
    server = Server()
    turn = server.pace.begin()
    server.pace.begin()
    assert [turn.sent(FRAME) for _ in range(LONG_BYTES // FRAME)] == [0.0, 0.0]


def test_a_long_answer_waits_for_short_ones_only() -> None:
    server = Server()
    turn = server.pace.begin()
    for _ in range(10):
        turn.sent(FRAME)
    server.now += 2 * RECENT_S
    assert turn.sent(FRAME) == 0.0
    server.pace.begin().close()
    waited = turn.sent(FRAME)
    assert 0.0 < waited < 0.1
    server.now += 2 * RECENT_S
    assert turn.sent(FRAME) == 0.0


def test_many_long_answers_together_leave_room() -> None:
    server = Server()
    turns = [server.pace.begin() for _ in range(12)]
    for turn, _ in itertools.product(turns, range(3)):
        turn.sent(FRAME)
    with_twelve = turns[0].sent(FRAME)
    for turn in turns[6:]:
        turn.close()
    assert abs(with_twelve - 2 * turns[0].sent(FRAME)) < 1e-9
    for turn in turns[1:6]:
        turn.close()
    assert 0.0 < turns[0].sent(FRAME) < with_twelve / 2
