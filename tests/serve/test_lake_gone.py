"""A lake that is taken away or spoilt under a running server: whoever asks hears that it failed, and nothing of the
server's disk; the server goes on, and so does all once the lake is back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from senders import block_body, new_id
from serve.doors import Doors, open_doors

INSTANCE = "SELECT msg FROM view_instance('log_entries', '{}')"
ALL = "SELECT msg FROM log_entries"
COUNT = "SELECT count(*) FROM blocks"
# of this machine, or of ours or anybody's programs
PLACES = re.compile(r"/(tmp|home|root|work|usr|proc|var)\b|\.py\b|\.rs\b|Traceback|File \"")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "the lake"


@pytest.fixture
def doors(lake: Path) -> Iterator[Doors]:
    with open_doors(lake) as opened:
        yield opened


def without_objects(lake: Path) -> None:
    (lake / "objects").rename(lake / "elsewhere")


def with_objects_again(lake: Path) -> None:
    shutil.rmtree(lake / "objects", ignore_errors=True)
    (lake / "elsewhere").rename(lake / "objects")


def cut_objects(lake: Path) -> None:
    shutil.copytree(lake / "objects", lake / "elsewhere")
    for path in (lake / "objects").rglob("*"):
        if path.is_file():
            os.truncate(path, 7)


def files_for_folders(lake: Path) -> None:
    without_objects(lake)
    (lake / "objects").write_text("not a folder")


def with_folders_again(lake: Path) -> None:
    (lake / "objects").unlink()
    (lake / "elsewhere").rename(lake / "objects")


def spoilt_database(lake: Path) -> None:
    shutil.copytree(lake, lake.with_name("copy"))
    for name in ("metadata.db", "metadata.db-wal"):
        if (lake / name).exists():
            os.truncate(lake / name, 100)


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        (without_objects, with_objects_again),
        (cut_objects, with_objects_again),
        (files_for_folders, with_folders_again),
        (spoilt_database, None),
        (shutil.rmtree, None),
    ],
)
def test_nobody_hears_where_it_was(
    doors: Doors, lake: Path, spoil: Callable[[Path], None], mend: Callable[[Path], None] | None
) -> None:
    known, unknown = (recording("logs").renamed(seed) for seed in ("known", "unknown"))
    for sent in (known, unknown):
        assert_all_accepted(sent.requests, post_all(doors.ports["ingestion"], sent.requests))
    statements = [INSTANCE.format(next(iter(each.processes))) for each in (known, unknown)]
    # what is asked before has files of rows then, the other only what its process sent
    assert set(doors.refusals(statements[0]).values()) == {""}
    spoil(lake)
    told = [doors.refusals(statement) for statement in (*statements, ALL, COUNT)]
    status, text = doors.insert("block", block_body(new_id(), new_id(), new_id(), size=50_000))
    assert status in (200, 500, 503)
    texts = [text, *(each for refusals in told for each in refusals.values())]
    assert [text for text in texts if PLACES.search(text) or str(lake) in text or lake.name in text] == []
    # SQLite may have in memory what it needs of a file that was cut
    if spoil not in (cut_objects, spoilt_database):
        assert all(told[1].values()), told[1]
    # alive
    assert set(doors.refusals("SELECT 1 AS one").values()) == {""}
    if mend is not None:
        mend(lake)
        for statement in statements:
            assert set(doors.refusals(statement).values()) == {""}
