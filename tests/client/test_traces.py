"""Files of traces: whole or not at all, and only where files are."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

from micromegas.client.traces import replaced


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    with replaced(file) as writing:
        writing.write(b"one")
    with contextlib.suppress(ZeroDivisionError), replaced(file) as writing:
        writing.write(b"t")
        raise ZeroDivisionError
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_keeps_pointing_to_the_file(tmp_path: Path) -> None:
    file, link = tmp_path / "trace", tmp_path / "link"
    link.symlink_to(file)
    for content in (b"one", b"two"):
        with replaced(link) as writing:
            writing.write(content)
        assert link.is_symlink()
        assert file.read_bytes() == content


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reading.start()
    with replaced(pipe) as writing:
        writing.write(b"one")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    reading.join(60)
    assert read == [b"one"]
