"""`python -m micromegas`: `run` starts a program that is recorded, all else is the command `micromegas`."""

import sys


def main() -> None:
    """Needs no extra for `run`."""
    if sys.argv[1:2] == ["run"]:
        from micromegas.record.run import run

        run(sys.argv[2:])
    else:
        from micromegas.cli.main import main as command

        command()


main()
