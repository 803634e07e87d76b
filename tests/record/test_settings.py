"""Settings that can't be: `init` and the environment name them, and nothing is recorded."""

from __future__ import annotations

import pytest

ATTEMPT = """
import math, pathlib
try: mm.init({given})
except (TypeError, ValueError) as error: print(type(error).__name__, error, sep=": ")
assert mm.status() is None
"""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("url=5", "TypeError: init(): url is a text, not int"),
        ("process_name=5", "TypeError: init(): process_name is a text, not int"),
        ("properties=['a']", "TypeError: init(): properties is a mapping, not list"),
        ("headers=[1]", "TypeError: init(): headers is a mapping, not list"),
        ("api_key=b'secret'", "TypeError: init(): api_key is a text, not bytes"),
        ("encoding=3", "TypeError: init(): encoding is a text, not int"),
        ("ca_file=5", "TypeError: init(): ca_file is a path, not int"),
        ("spool_dir=b'/tmp'", "TypeError: init(): spool_dir is a path, not bytes"),
        ("scrub='secret'", "TypeError: init(): scrub is True, False or a list of patterns, not str"),
        ("scrub=5", "TypeError: init(): scrub is True, False or a list of patterns, not int"),
        ("flush_period='x'", "ValueError: flush_period 'x': not a number of seconds"),
        ("flush_period=10**400", "ValueError: flush_period 1"),
        ("flush_period=math.nan", "ValueError: flush period of NaN s: not between 0 and a year"),
        ("queue_bytes=-1", "ValueError: queue_bytes -1: not a number of bytes"),
        ("queue_bytes=1.5", "ValueError: queue_bytes 1.5: not a number of bytes"),
        ("spool_bytes=2**64", "ValueError: spool_bytes 18446744073709551616: not a number of bytes"),
        ("buffer_bytes='x'", "ValueError: buffer_bytes 'x': not a number of bytes"),
        ("buffer_bytes=1000", "ValueError: buffer_bytes 1000: at least 262144"),
        ("client_key=pathlib.Path('key.pem')", "ValueError: client_key: of no client_certificate"),
    ],
)
def test_a_setting_that_can_not_be(run, given, told):
    assert run(ATTEMPT.format(given=given)).stdout.startswith(told)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MICROMEGAS_BUFFER_BYTES", "many", "not a number of bytes"),
        ("MICROMEGAS_QUEUE_BYTES", "-1", "not a number of bytes"),
        ("MICROMEGAS_SPOOL_BYTES", "1e9", "not a number of bytes"),
        ("MICROMEGAS_FLUSH_PERIOD", "many", "not a number of seconds"),
        ("MICROMEGAS_SPOOL", "maybe", "neither on nor off"),
        ("MICROMEGAS_SCRUB", "maybe", "neither on nor off"),
        ("MICROMEGAS_SYSTEM_METRICS", "maybe", "neither on nor off"),
        ("MICROMEGAS_CAPTURE_LOGGING", "maybe", "neither on nor off"),
        ("MICROMEGAS_RECORDER_CLOCK", "sundial", "neither counter nor monotonic"),
    ],
)
def test_a_variable_that_can_not_be(run, variable, value, told):
    assert run(ATTEMPT.format(given=""), env={variable: value}).stdout == f"ValueError: {variable} {value!r}: {told}\n"


@pytest.mark.parametrize("word", ["", "1", "true", "Yes", " on "])
def test_words_for_yes(run, server, word):
    run("mm.init(); mm.log.info('password=hunter2')", env={"MICROMEGAS_SCRUB": word})
    assert server.captured.messages() == ["password=[scrubbed]"]


@pytest.mark.parametrize("word", ["0", "false", "No", " off "])
def test_words_for_no(run, server, word):
    run("mm.init(); mm.log.info('password=hunter2')", env={"MICROMEGAS_SCRUB": word})
    assert server.captured.messages() == ["password=hunter2"]


def test_properties_of_the_environment(run, server):
    run("mm.init(properties={'b': 3})", env={"MICROMEGAS_PROCESS_PROPERTIES": "a=1, b = 2 ,c=x=y,"})
    properties = server.captured.processes[0]["properties"]
    assert {name: properties[name] for name in "abc"} == {"a": "1", "b": "3", "c": "x=y"}
