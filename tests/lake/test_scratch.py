"""Temporary folders: those of the dead are wiped by the next start, those of the living by nobody."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from micromegas.lake import Scratch
from micromegas.lake.scratch import PREFIX, wipe_left

PROCESSES = multiprocessing.get_context("forkserver")
DEADLINE_S = 60.0
STARTERS = 4


def hold(base: Path, told: Connection) -> None:
    """A process with a folder in use, until it is killed."""
    scratch = Scratch(base)
    (scratch.new_folder() / "rows.parquet").write_bytes(b"half of a file")
    told.send(str(scratch.prepare()))
    threading.Event().wait()


def start_often(base: Path, told: Connection) -> None:
    """Many starts in a row, each of which finds its own folder in place until its end."""
    for _ in range(100):
        scratch = Scratch(base)
        inside = scratch.new_folder()
        if not inside.is_dir() or wipe_left(base) < 0 or not inside.is_dir():
            told.send("lost its folder")
            return
        scratch.close()
    told.send("kept its folders")


def test_what_the_killed_left_is_wiped_and_what_the_living_use_is_not(tmp_path: Path) -> None:
    holders = []
    for _ in range(2):
        hears, tells = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=hold, args=(tmp_path, tells), daemon=True)
        process.start()
        assert hears.poll(DEADLINE_S)
        holders.append((process, Path(hears.recv())))
    (killed, left), (living, used) = holders
    killed.kill()
    killed.join()
    (tmp_path / f"{PREFIX}notes").write_text("no folder at all")
    (tmp_path / "of somebody else").mkdir()
    mine = Scratch(tmp_path)
    with mine.temporary() as inside:
        assert not left.exists()
        assert (next(used.iterdir()) / "rows.parquet").exists()
        assert wipe_left(tmp_path) == 0
        assert inside.is_dir()
    living.kill()
    living.join()
    assert wipe_left(tmp_path) == 1
    folder = mine.prepare()
    mine.close()
    mine.close()
    assert not folder.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"{PREFIX}notes", "of somebody else"]


def test_starts_at_once_never_wipe_one_another(tmp_path: Path) -> None:
    listening = []
    for _ in range(STARTERS):
        hears, tells = PROCESSES.Pipe(duplex=False)
        PROCESSES.Process(target=start_often, args=(tmp_path, tells), daemon=True).start()
        listening.append(hears)
    for hears in listening:
        assert hears.poll(DEADLINE_S)
        assert hears.recv() == "kept its folders"
    assert list(tmp_path.iterdir()) == []
