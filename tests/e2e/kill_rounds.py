"""Senders, readers, and a server that is killed at random instants: what must hold however often that happens.

Every message names its block and its place, so that each acknowledged row can be looked for by itself.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from e2e.made_traffic import MadeProcess, MadeStream, block_request
from e2e.merge_everything import merge_everything
from e2e.posting import Sender
from e2e.recordings import Request
from e2e.serving import Service, wait_until_materialized

from micromegas.client import ServerUnreachable
from micromegas.config import LakeSettings

SENDERS = 4
GIVE_UP_SHARE = 0.3
"""Share of the unanswered blocks that are never sent again."""


class Fate(Enum):
    """What a sender knows of a block."""

    ACKNOWLEDGED = "acknowledged"
    UNANSWERED = "unanswered"


@dataclass(slots=True)
class Ledger:
    """What was sent: by block, its view, its rows and its fate."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    """Processes that everybody must know; blocks of others may be acknowledged without being seen."""
    processes: dict[str, str] = field(default_factory=dict)
    """By block, its process."""
    fates: dict[str, Fate] = field(default_factory=dict)
    reads: int = 0

    def note(self, block_id: str, fate: Fate) -> None:
        with self.lock:
            self.fates[block_id] = fate

    def visible_rows(self, view: str) -> Counter[str]:
        """By process, the rows that every answer must hold from now on."""
        with self.lock:
            found: Counter[str] = Counter()
            for block_id, (of_view, rows) in self.rows.items():
                process_id = self.processes[block_id]
                if of_view == view and self.fates[block_id] is Fate.ACKNOWLEDGED and process_id in self.announced:
                    found[process_id] += len(rows)
            return found

    def count(self, fate: Fate) -> int:
        return sum(each is fate for each in self.fates.values())


class KillRounds:
    """A server on a lake, killed again and again while telemetry comes in and questions are asked."""

    def __init__(self, settings: LakeSettings, seed: int) -> None:
        self.ledger = Ledger()
        self.service = Service("serve", settings)
        self._settings = settings
        self._random = Random(seed)
        self._ended = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, rounds: int) -> None:
        """`rounds` kills; afterwards the server runs and everybody else has stopped."""
        workers = [
            threading.Thread(target=self._guarded, args=(self._send, Random(self._random.random())), daemon=True)
            for _ in range(SENDERS)
        ]
        workers.append(threading.Thread(target=self._guarded, args=(self._read, Random(0)), daemon=True))
        self.service.start()
        for worker in workers:
            worker.start()
        try:
            for _ in range(rounds):
                if self._random.random() < 0.25:
                    # In the middle of its start, too.
                    time.sleep(self._random.uniform(0.0, 1.5))
                else:
                    self.service.wait_until_ready()
                    time.sleep(self._random.uniform(0.0, 1.5))
                self.service.kill()
                self.service.start(wait=False)
            self.service.wait_until_ready()
        finally:
            self._ended.set()
            for worker in workers:
                worker.join()
        if self._failures:
            raise self._failures[0]

    def check(self) -> None:
        """Every acknowledged block is there exactly once, every unanswered one at most once and whole."""
        numbered = "stream_id || '/' || CAST(CAST(value AS BIGINT) AS VARCHAR)"
        for view, text in (("log_entries", "msg"), ("measures", numbered)):
            table = self.service.query(f"SELECT block_id, {text} AS row FROM {view}")
            found: dict[str, Counter[str]] = {}
            for block_id, row in zip(table["block_id"].to_pylist(), table["row"].to_pylist(), strict=True):
                found.setdefault(block_id, Counter())[row] += 1
            for block_id, (of_view, rows) in self.ledger.rows.items():
                if of_view != view:
                    continue
                seen = found.pop(block_id, Counter())
                if seen or self.ledger.fates[block_id] is Fate.ACKNOWLEDGED:
                    assert seen == Counter(rows), (view, block_id, self.ledger.fates[block_id], seen)
            assert not found, f"{view}: rows of blocks that nobody sent: {list(found)[:5]}"
            self._check_instances(view)
        errors = self.service.query("SELECT block_id, error FROM list_block_errors()")
        assert errors.num_rows == 0, errors.to_pylist()[:5]

    def _check_instances(self, view: str) -> None:
        whole = self.service.query(f"SELECT process_id, count(*) AS n FROM {view} GROUP BY process_id")
        for row in whole.to_pylist():
            instance = f"view_instance('{view}', '{row['process_id']}')"
            assert self.service.query(f"SELECT count(*) AS n FROM {instance}")["n"][0].as_py() == row["n"], row

    def check_everywhere(self) -> None:
        """Check from the tail, from partitions, and after all merges that days would bring; ends the server."""
        self.check()
        wait_until_materialized(self.service)
        self.check()
        assert self.service.stop() == 0
        merge_everything(self._settings)
        self.service.start()
        self.check()
        assert self.service.stop() == 0

    def close(self) -> None:
        self._ended.set()
        self.service.kill()

    def _guarded(self, work: Callable[[Random], None], random: Random) -> None:
        try:
            work(random)
        except BaseException as error:
            self._failures.append(error)

    def _send(self, random: Random) -> None:
        made = MadeProcess(random)
        logs, measures = made.stream("log"), made.stream("metrics")
        sender = Sender(self.service.http_port)
        # The first blocks come before anybody knows their stream.
        self._send_block(sender, logs, random)
        for request in (measures.request(), logs.request(), made.request()):
            self._until_acknowledged(sender, request)
        with self.ledger.lock:
            self.ledger.announced.add(made.process_id)
        while not self._ended.is_set():
            self._send_block(sender, random.choice((logs, measures)), random)
            time.sleep(random.uniform(0.0, 0.02))
        sender.close()

    def _send_block(self, sender: Sender, stream: MadeStream, random: Random) -> None:
        size = random.choice((1, 3, 30))
        block_id, fields, rows = numbered_block(stream, size)
        view = "log_entries" if stream.tag == "log" else "measures"
        with self.ledger.lock:
            self.ledger.rows[block_id] = (view, rows)
            self.ledger.processes[block_id] = stream.process_id
            self.ledger.fates[block_id] = Fate.UNANSWERED
        request = block_request(fields)
        if random.random() < GIVE_UP_SHARE:
            acknowledged = self._is_acknowledged(sender, request)
        else:
            acknowledged = self._until_acknowledged(sender, request)
        if acknowledged:
            self.ledger.note(block_id, Fate.ACKNOWLEDGED)
            if random.random() < 0.05:
                # An answer that a sender never saw: it comes again.
                self._is_acknowledged(sender, request)

    def _until_acknowledged(self, sender: Sender, request: Request) -> bool:
        while not self._is_acknowledged(sender, request):
            if self._ended.is_set():
                # The server runs now and is not killed any more.
                return self._is_acknowledged(sender, request)
            time.sleep(0.05)
        return True

    def _is_acknowledged(self, sender: Sender, request: Request) -> bool:
        try:
            answer = sender.post(request.path, request.body)
        except (OSError, http.client.HTTPException):
            return False
        assert answer.status in (200, 503), answer
        return answer.status == 200

    def _read(self, random: Random) -> None:
        """Whatever was acknowledged before a question is in its answer."""
        while not self._ended.is_set():
            view = random.choice(("log_entries", "measures"))
            expected = self.ledger.visible_rows(view)
            # Either all processes, or the partitions that are made for one of them while the question waits.
            process_id = random.choice([None, *expected])
            table = view if process_id is None else f"view_instance('{view}', '{process_id}')"
            try:
                found = self.service.query(f"SELECT count(*) AS n FROM {table}")["n"][0].as_py()
            except ServerUnreachable:
                time.sleep(0.05)
                continue
            least = expected.total() if process_id is None else expected[process_id]
            assert found >= least, (view, process_id, found, least)
            self.ledger.reads += 1


def numbered_block(stream: MadeStream, size: int) -> tuple[str, dict[str, object], list[str]]:
    """A block of `size` events, its id, and the text that each of its rows must carry."""
    numbers = range(stream.nb_objects, stream.nb_objects + size)
    rows = [f"{stream.stream_id}/{number}" for number in numbers]
    fields = stream.logs(rows) if stream.tag == "log" else stream.measures(numbers)
    return str(fields["block_id"]), fields, rows
