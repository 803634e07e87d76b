"""`python -m micromegas`: `run` starts a program that is recorded, `spool` shows and sends what dead processes left,
all else is the command `micromegas`."""

import sys


def main() -> None:
    """Needs no extra for `run` and `spool`."""
    if sys.argv[1:2] == ["run"]:
        from micromegas.record.run import run

        run(sys.argv[2:])
    elif sys.argv[1:2] == ["spool"]:
        from micromegas.record.spool_command import run as spool

        spool(sys.argv[2:])
    else:
        from micromegas.cli.main import main as command

        command()


main()
