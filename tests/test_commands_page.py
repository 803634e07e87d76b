"""docs/commands.md tells of every command and option, and commands that give something give it in JSON as well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import commands_page

COMMANDS = dict(commands_page.commands())
# Services tell where they listen; what is removed gives nothing, nor does who signs in.
WITHOUT_JSON = {"serve", "ingest", "query-server", "pg-gateway", "daemon", "keys remove", "login", "logout"}


def test_the_page_is_what_the_command_line_says() -> None:
    stored = commands_page.PAGE.read_text(encoding="utf-8")
    assert stored == commands_page.page(), "docs/commands.md is stale: python tools/commands_page.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_told(name: str) -> None:
    command: Any = COMMANDS[name]
    assert command.help
    assert all(each.help for each in command.params)
    section = commands_page.PAGE.read_text(encoding="utf-8").partition(f"## {name}\n")[2].partition("\n## ")[0]
    for option in (each for each in command.params if each.param_type_name == "option" and "--help" not in each.opts):
        assert all(f"`{flag}`" in section for flag in option.opts)
        assert not option.envvar or f"`{option.envvar}`" in section


@pytest.mark.parametrize("name", COMMANDS)
def test_what_gives_something_gives_json(name: str) -> None:
    flags = {flag for option in COMMANDS[name].params for flag in option.opts}
    assert ("--json" in flags) == (name.removeprefix("micromegas ") not in WITHOUT_JSON)
