"""A program of a user, for type checkers only: decorators keep signatures, results have types."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, assert_type

import micromegas as mm


@mm.trace
def load(path: str, *, retries: int = 3) -> bytes:
    return path.encode() * retries


@mm.trace(name="fetch")
async def fetch(url: str, timeout: float = 1.0) -> int:
    return int(timeout) + len(url)


@mm.trace
def numbers(limit: int) -> Generator[int, str, bool]:
    said = yield limit
    return said == "stop"


@mm.trace
async def pages(first: int) -> AsyncGenerator[str, None]:
    yield str(first)


class Level:
    @mm.trace
    def parse(self, text: str) -> list[str]:
        return text.split()

    @staticmethod
    @mm.trace
    def of(name: str) -> "Level":
        return Level()

    @classmethod
    @mm.trace
    def default(cls) -> "Level":
        return cls()


@mm.main
def main(verbose: bool = False) -> int:
    return int(verbose)


@mm.main
async def serve(port: int) -> str:
    return str(port)


def check() -> None:
    assert_type(load("a", retries=2), bytes)
    fetching: Coroutine[Any, Any, int] = fetch("u")  # pyright has a narrower type of its own for it
    fetching.close()
    assert_type(numbers(1), Generator[int, str, bool])
    assert_type(pages(1), AsyncGenerator[str, None])
    assert_type(Level().parse("a b"), list[str])
    assert_type(Level.of("x"), Level)
    assert_type(Level.default(), Level)
    assert_type(main(verbose=True), int)
    assert_type(serve(1), str)
    callback: Callable[[str], bytes] = load
    assert_type(callback("a"), bytes)

    assert_type(mm.init(url="http://127.0.0.1:9000", properties={"build": 1}, level="info"), str)
    assert_type(mm.flush(timeout=1), bool)
    assert_type(mm.shutdown(), bool)
    assert_type(mm.status(), dict[str, object] | None)
    mm.log.info("template %s", object(), user=1)
    mm.metric("m", "ms", properties={"a": 1}).record(1.5)
    mm.counter("c").add(2)
    with mm.span("s"):
        pass
    with mm.testing.capture() as events:
        pass
    assert_type([log.message for log in events.logs], list[str])
    assert_type([measure.value for measure in events.metrics], list[int | float])
    assert_type([child.end for span in events.spans for child in span.walk()], list[int | None])


async def check_async() -> None:
    async with mm.span("s"):
        assert_type(await fetch("u", timeout=2), int)
    async for page in pages(1):
        assert_type(page, str)
