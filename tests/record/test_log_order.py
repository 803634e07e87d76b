"""Events of one thread go into blocks while they are read, those of several wait for each other: none is lost."""

import pytest

EVENTS = 3000

PROGRAM = """
import threading
mm.init(flush_period=0.05)
begun = threading.Barrier({threads})

def leave(name):
    mm.log.info("%s begins", name)
    begun.wait()
    for number in range({events}):
        mm.log.info("%s %d took %s", name, number, number / 4)
        if number % 41 == 0:
            mm.log.info("%s asks for %r", name, "caf\\u00e9 %d" % number)
        if number % 53 == 0:
            mm.log.info("%s logs in with %s", name, "password=hunter%d" % number)
        if number % 67 == 0:
            mm.log.warn("%s rests", name, after=number)
        if number % 71 == 0:
            mm.log.info(f"{{name}} at {{number}}")
    mm.log.info("end")

threads = [threading.Thread(target=leave, args=("thread-%d" % number,)) for number in range({threads})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def expected(name: str) -> list[str]:
    messages = [f"{name} begins"]
    for number in range(EVENTS):
        messages.append(f"{name} {number} took {number / 4}")
        if number % 41 == 0:
            messages.append(f"{name} asks for 'caf\u00e9 {number}'")
        if number % 53 == 0:
            messages.append(f"{name} logs in with password=[scrubbed]")
        if number % 67 == 0:
            messages.append(f"{name} rests")
        if number % 71 == 0:
            messages.append(f"{name} at {number}")
    return messages


@pytest.mark.parametrize("threads", [1, 4])
def test_each_event_arrives_once_and_in_its_threads_order(run, server, threads):
    run(PROGRAM.format(threads=threads, events=EVENTS))
    messages = server.captured.messages()
    for number in range(threads):
        name = f"thread-{number}"
        assert [message for message in messages if message.startswith(f"{name} ")] == expected(name)
    assert messages.count("end") == threads
    assert len(messages) == threads * (len(expected("")) + 1)


def test_events_of_one_thread_are_in_the_order_of_time(run, server):
    run(PROGRAM.format(threads=1, events=EVENTS))
    for block in server.captured.blocks:
        if block.tag == "log":
            times = [event["time"] for event in block.events]
            assert times == sorted(times)
