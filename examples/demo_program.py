"""An instrumented program: threads draw a picture tile by tile, a coroutine stores the tiles. Logs, measures, traces.

What it records goes to the server that MICROMEGAS_TELEMETRY_URL names, else to http://127.0.0.1:9000. It runs without
a server too.
"""

import asyncio
import queue
import threading
import time

import micromegas as mm

WORKERS = 3
TILES_PER_SIDE = 8
TILE_SIZE = 24
SLOW_MS = 25.0

tile_time = mm.metric("tile_time", "ms")
iterations_used = mm.metric("iterations", "count")
tiles_waiting = mm.metric("tiles_waiting", "count")
points_inside = mm.counter("points_inside")

Tile = tuple[int, int]


@mm.trace
def point(c: complex, limit: int) -> int:
    """The number of steps until the orbit of `c` leaves the circle, `limit` if it does not."""
    z = 0j
    for step in range(limit):
        z = z * z + c
        if abs(z) > 2:
            return step
    return limit


@mm.trace
def draw(tile: Tile) -> list[int]:
    column, row = tile
    limit = 40 + 10 * (column + row)
    scale = 3.0 / (TILES_PER_SIDE * TILE_SIZE)
    pixels = []
    for y in range(TILE_SIZE):
        with mm.span("row"):
            for x in range(TILE_SIZE):
                c = complex((column * TILE_SIZE + x) * scale - 2.2, (row * TILE_SIZE + y) * scale - 1.5)
                steps = point(c, limit)
                if steps == limit:
                    points_inside.add(1)
                pixels.append(steps)
    iterations_used.record(sum(pixels))
    return pixels


def work(todo: "queue.SimpleQueue[Tile]", done: "queue.SimpleQueue[tuple[Tile, bytes]]") -> None:
    while True:
        try:
            tile = todo.get_nowait()
        except queue.Empty:
            mm.log.info("nothing left to draw")
            return
        tiles_waiting.record(todo.qsize())
        with mm.span("tile"):
            begin = time.perf_counter()
            pixels = draw(tile)
            milliseconds = (time.perf_counter() - begin) * 1000
            tile_time.record(milliseconds)
            if milliseconds > SLOW_MS:
                mm.log.warn("tile %d,%d took %.1f ms", *tile, milliseconds, tile=f"{tile[0]}-{tile[1]}")
            else:
                mm.log.debug("tile %d,%d took %.1f ms", *tile, milliseconds)
            done.put((tile, bytes(min(steps, 255) for steps in pixels)))


@mm.trace
async def store(tile: Tile, picture: bytes) -> int:
    async with mm.span("compress"):
        await asyncio.sleep(0)
        distinct = len(set(picture))
    if distinct == 1:
        mm.log.error("tile %d,%d is empty: all of its points are alike", *tile)
    return len(picture)


@mm.trace
async def store_all(done: "queue.SimpleQueue[tuple[Tile, bytes]]") -> int:
    sizes = []
    while not done.empty():
        sizes.append(store(*done.get()))
    return sum(await asyncio.gather(*sizes))


def main() -> None:
    mm.init(process_name="demo_program", properties={"example": "mandelbrot"})
    mm.log.info("drawing %d tiles with %d threads", TILES_PER_SIDE**2, WORKERS)
    todo: queue.SimpleQueue[Tile] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Tile, bytes]] = queue.SimpleQueue()
    for row in range(TILES_PER_SIDE):
        for column in range(TILES_PER_SIDE):
            todo.put((column, row))
    threads = [threading.Thread(target=work, args=(todo, done), name=f"painter-{n}") for n in range(WORKERS)]
    with mm.span("draw picture"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = asyncio.run(store_all(done))
    mm.log.info("stored %d bytes", stored)


if __name__ == "__main__":
    main()
