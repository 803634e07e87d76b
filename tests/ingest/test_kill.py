"""The service is killed at random instants while blocks arrive: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import threading
import time

import cbor2
import pytest
from senders import block_body, new_id, process_body, stream_body
from servers.ingest import ingest_process

from micromegas.config import LakeSettings
from micromegas.lake import Lake

SENDERS = 6
KILLS = 2


class Sender(threading.Thread):
    """Sends its bodies in a shuffled order with repeats, over one connection, and remembers what was acknowledged."""

    def __init__(self, port: int, bodies: list[tuple[str, str, bytes]], seed: int) -> None:
        super().__init__()
        order = random.Random(seed)
        self._port = port
        self._work = order.sample(bodies, len(bodies)) + order.sample(bodies, len(bodies) // 4)
        self.acknowledged: set[str] = set()
        self.unexpected: list[int] = []

    def run(self) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            for kind, item_id, body in self._work:
                try:
                    connection.request("POST", f"/ingestion/insert_{kind}", body)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    return
                if answer.status == 200:
                    self.acknowledged.add(item_id)
                elif answer.status == 503:
                    return
                else:
                    self.unexpected.append(answer.status)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_service_keeps_its_word(lake_backend: LakeSettings, seed: int) -> None:
    order = random.Random(seed)
    process_id, stream_ids = new_id(), [new_id() for _ in range(3)]
    bodies = [("process", process_id, process_body(process_id))]
    bodies += [("stream", stream_id, stream_body(process_id, stream_id)) for stream_id in stream_ids]
    payloads: dict[str, object] = {}
    for number in range(240):
        block_id = new_id()
        # A few are so big that they get objects of their own.
        size = 300_000 if number % 40 == 0 else order.randrange(0, 3000)
        body = block_body(process_id, order.choice(stream_ids), block_id, size=size)
        payloads[block_id] = cbor2.loads(body)["payload"]
        bodies.append(("block", block_id, body))

    acknowledged: set[str] = set()
    for _ in range(KILLS):
        with ingest_process(lake_backend) as (service, port):
            senders = [Sender(port, bodies, order.randrange(2**32)) for _ in range(SENDERS)]
            for sender in senders:
                sender.start()
            time.sleep(order.uniform(0.01, 0.4))
            service.kill()
            service.wait()
            for sender in senders:
                sender.join()
                assert sender.unexpected == []
                acknowledged |= sender.acknowledged
        with Lake.open(lake_backend) as lake:
            stored = {row.block_id for row in lake.metadata.blocks()}
            stored |= {each.block_id for each in lake.metadata.block_errors() if each.view_set is None}
            stored |= {row.process_id for row in lake.metadata.process_rows()}
            stored |= {row.stream_id for row in lake.metadata.stream_rows()}
            assert acknowledged <= stored

    # What was not acknowledged is sent again, as senders do; a quiet end this time.
    with ingest_process(lake_backend) as (service, port):
        last = [Sender(port, bodies, order.randrange(2**32)) for _ in range(2)]
        for sender in last:
            sender.start()
        for sender in last:
            sender.join()
            assert sender.unexpected == []
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    with Lake.open(lake_backend) as lake:
        rows = lake.metadata.blocks()
        assert sorted(row.block_id for row in rows) == sorted(payloads), "each block once, whatever happened"
        for row, payload in zip(rows, lake.read_payloads(rows), strict=True):
            assert cbor2.loads(payload) == payloads[row.block_id]


def test_terminated_service_answers_what_it_took(lake_backend: LakeSettings) -> None:
    process_id, stream_id = new_id(), new_id()
    bodies = [
        ("process", process_id, process_body(process_id)),
        ("stream", stream_id, stream_body(process_id, stream_id)),
    ]
    bodies += [("block", each, block_body(process_id, stream_id, each)) for each in (new_id() for _ in range(5000))]
    with ingest_process(lake_backend) as (service, port):
        senders = [Sender(port, bodies, seed) for seed in range(SENDERS)]
        for sender in senders:
            sender.start()
        while not all(sender.acknowledged for sender in senders):
            time.sleep(0.01)
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
        for sender in senders:
            sender.join()
            assert sender.unexpected == []
    with Lake.open(lake_backend) as lake:
        stored = {row.block_id for row in lake.metadata.blocks()}
        stored |= {each.block_id for each in lake.metadata.block_errors() if each.view_set is None}
        acknowledged = set().union(*(sender.acknowledged for sender in senders))
        assert acknowledged - {process_id, stream_id} <= stored
