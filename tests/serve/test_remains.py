"""Whether work goes on that was cut off, told by which threads are at work."""

from __future__ import annotations

import threading

from micromegas.query.work_in_hand import WorkInHand
from micromegas.serve.workers.remains import Remains

BUSY = frozenset({7})
CALM: frozenset[int] = frozenset()
LOOKS = 40


class Process:
    """A process by what can be seen of it: its threads, its queries, its clock."""

    def __init__(self) -> None:
        self.at_work = CALM
        self.now = 0.0
        self.work = WorkInHand()
        self.remains = Remains(self.work, lambda: self.now, lambda: self.at_work)

    def looks(self, count: int = LOOKS) -> list[str]:
        """Verdicts of so many looks, a tenth of a second apart."""
        verdicts = []
        for _ in range(count):
            self.now += 0.1
            if (verdict := self.remains.look()) is not None:
                verdicts.append(verdict)
        return verdicts


def test_threads_at_work_mean_nothing_while_nothing_was_cut_off() -> None:
    process = Process()
    process.at_work = BUSY
    assert process.looks() == []
    piece = process.work.begin(deadline=100.0)
    assert process.looks() == []
    process.work.finish(piece)
    assert process.looks() == []
    process.work.cut(piece)
    assert process.looks() == []


def test_work_that_goes_on_is_seen_at_once_where_nobody_else_is_served() -> None:
    process = Process()
    process.at_work = BUSY
    process.work.cut(process.work.begin(deadline=100.0))
    assert process.looks() != []
    assert process.now < 10.0


def test_it_waits_for_the_time_limit_where_others_are_served() -> None:
    process = Process()
    process.at_work = BUSY
    process.work.begin(deadline=1000.0)
    process.work.cut(process.work.begin(deadline=10.0))
    assert process.looks(95) == []
    assert process.looks() != []


def test_a_thread_that_waits_now_and_then_is_of_others() -> None:
    process = Process()
    process.work.begin(deadline=1000.0)
    process.work.cut(process.work.begin(deadline=10.0))
    for _ in range(5):
        process.at_work = BUSY
        assert process.looks(5) == []
        process.at_work = CALM
        assert process.looks(1) == []
    assert process.work.pieces_cut == []
    process.at_work = BUSY
    process.now = 20.0
    assert process.looks() == []


def test_one_pause_does_not_tell_that_it_is_over() -> None:
    process = Process()
    process.work.cut(process.work.begin(deadline=10.0))
    process.at_work = BUSY
    assert process.looks(5) == []
    process.at_work = CALM
    assert process.looks(1) == []
    process.at_work = BUSY
    assert process.looks() != []


def test_threads_that_come_later_are_of_others() -> None:
    process = Process()
    process.at_work = frozenset({1})
    process.work.cut(process.work.begin(deadline=10.0))
    assert process.looks(1) == []
    process.at_work = frozenset({2})
    assert process.looks() == []
    assert process.work.pieces_cut == []


def test_planning_may_take_until_the_time_limit() -> None:
    process = Process()
    piece = process.work.begin(deadline=10.0)
    planned = piece.planned = threading.Event()
    process.work.cut(piece)
    assert process.looks(140) == []
    assert process.looks(20) != []
    planned.set()
    assert process.looks() == []
    assert process.work.pieces_cut == []
