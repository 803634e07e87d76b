"""Room in the spool that is given back while its files are used again."""

import subprocess

from record.conftest import KILL, WAIT_RECOVERED

LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>
/* Gives room back only once somebody lets it. */
int fallocate(int file, int mode, off_t offset, off_t length)
{
    int (*at_once)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate");
    int punches = mode == (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE);
    for (int tries = 0; punches && tries < 2000 && access("may_punch", F_OK); tries++) {
        usleep(10000);
    }
    int result = at_once(file, mode, offset, length);
    if (punches) {
        close(creat("has_punched", 0600));
    }
    return result;
}
"""


def test_a_refused_block_is_late_to_free_its_room(run, server, tmp_path):
    """Its segment was sent meanwhile, and the file has become that of another."""
    library = tmp_path / "late.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=LATE, text=True, check=True)
    refused = []

    def answer(route: str, number: int) -> int:
        if route != "insert_block":
            return 200
        if not refused:
            refused.append(number)
            return 400
        return 503 if (tmp_path / "away").exists() else 200

    server.answer = answer
    program = f"""
        import os, pathlib, time
        mm.init(encoding="transit", flush_period=86400)
        mm.log.info("refused")
        mm.flush(0.5)
        for name in ("away", "may_punch"):
            for i in range(300): mm.log.info("x %s %d", name, i)
            mm.flush(1)
            pathlib.Path(name).touch()
        end = time.monotonic() + 20
        while not os.path.exists("has_punched") and time.monotonic() < end: time.sleep(0.01)
        print(mm.status()["process_id"], flush=True)
        {KILL}
        """
    dead = run(program, returncode=-9, env={"LD_PRELOAD": str(library)}).stdout.strip()
    assert (tmp_path / "has_punched").exists()
    (tmp_path / "away").unlink()
    run("mm.init()\n" + WAIT_RECOVERED)
    found = sorted(text for text in server.captured.messages(dead) if text.startswith("x "))
    assert found == sorted(f"x {name} {i}" for name in ("away", "may_punch") for i in range(300))
