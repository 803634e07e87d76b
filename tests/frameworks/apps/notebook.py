"""Cells in a real IPython shell, one after the other, with the magics of `%load_ext micromegas`."""

from IPython.core.interactiveshell import InteractiveShell

CELLS = [
    "%load_ext micromegas",
    "import asyncio, micromegas as mm",
    "%%span load data\ndef area(width, height):\n    return width * height\nfound = area(2, 3)\nfound",
    "%mm_trace",
    "%%span traced\narea(found, 4)",
    "%mm_trace off",
    "%%span plain\narea(5, 6)",
    "%%span waits\nawait asyncio.sleep(0)\nmm.log.info('waited in a cell')",
    "%%span fails\n1 / 0",
    "%%span is no Python\n1 +",
    "%%span\nmm.log.info('after a cell that failed: %d', found)",
    "%reload_ext micromegas",
    "%%span again\nfound",
]

FAILS = {"%%span fails\n1 / 0": ZeroDivisionError, "%%span is no Python\n1 +": SyntaxError}

shell = InteractiveShell.instance()
for cell in CELLS:
    result = shell.run_cell(cell, store_history=True)
    assert type(result.error_in_exec) is FAILS.get(cell, type(None)), cell
assert shell.user_ns["found"] == 6
