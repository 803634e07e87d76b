"""Log events: every kind of value, every level, whatever object is given."""

import json

import pytest

LEVELS = {"fatal": 1, "critical": 1, "error": 2, "warn": 3, "warning": 3, "info": 4, "debug": 5, "trace": 6}


def test_levels_and_place(run, server):
    run(
        """
        mm.init(level="trace")
        for name in ("fatal", "critical", "error", "warn", "warning", "info", "debug", "trace"):
            getattr(mm.log, name)("level " + name)
        mm.log.info("a literal")
        """
    )
    events = server.captured.events("log")
    seen = {event["msg"].removeprefix("level "): event["desc"]["level"] for event in events if "msg" in event}
    assert {name: seen[name] for name in LEVELS if name in seen} == {name: LEVELS[name] for name in seen}
    literal = [event for event in events if event["$type"] == "LogStaticStrEvent"][-1]["desc"]
    assert literal["fmt_str"] == "a literal"
    assert (literal["target"], literal["line"]) == ("__main__", 6)
    assert literal["file"].endswith("program.py")


@pytest.mark.parametrize("level", ["debug", "info", "off"])
def test_level_filter(run, server, level):
    run(f"mm.init(level={level!r})\nmm.log.debug('d')\nmm.log.info('i')\nmm.log.trace('t')\nmm.log.fatal('f')\n")
    expected = {"debug": ["d", "i", "f"], "info": ["i", "f"], "off": []}[level]
    assert server.captured.messages() == expected


VALUES = """
import decimal, enum, fractions, math
class Colour(enum.IntEnum):
    RED = 3
class Text(str):
    def __str__(self): return "from __str__"
class Number(int):
    def __repr__(self): return "a number"
values = [0, 1, -1, 42, -255, 2**29, 2**30, -2**30, 2**31, 2**60, 2**62, 2**63 - 1, -2**63, 2**63, -2**63 - 1, 10**40,
    True, False, None, 0.0, -0.0, 1.0, 0.1, -2.5, 0.5, 1.5, 1e15, 1e16, 1.25e22, 1e-4, 1e-5, 123456.789, 5e-324,
    1.7976931348623157e308, math.inf, -math.inf, math.nan, "", "text", "é", "日本語", "🚀 ok", "a" * 7, "b" * 8,
    "c" * 9, "d" * 16, "e" * 17, "f" * 32, "g" * 33, "\\x00in\\x00side", "quote ' and \\" both", "new\\nline", "tab\\t",
    Text("x"), Number(5), Colour.RED, decimal.Decimal("1.10"), fractions.Fraction(1, 3), b"bytes", (1, 2), [1, "a"],
    {"k": 1}, {1, }, object, 3 + 4j, ...]
templates = ["%s", "%r", "%d", "%i", "%u", "%x", "%X", "%o", "%e", "%E", "%f", "%F", "%g", "%G", "%c", "%a",
    "%5s", "%-5s|", "%.2s", "%8.3s|", "%05d", "%-6d|", "%+d", "% d", "%.4d", "%08.5d", "%+08d", "%-+8d|", "%#x", "%#o",
    "%08x", "%+x", "%.3x", "%.0f", "%.1f", "%.2f", "%10.3f", "%-10.2f|", "%+f", "% f", "%010.2f", "%.0e", "%.3e",
    "%12.4e", "%.0g", "%.1g", "%.3g", "%.17g", "%010g", "%+g", "%#g", "%05s", "%%%s%%", "%ld", "%hd", "a%sb", "%5%%s",
    "%.r", "%.3r", "%20r"]
"""


def test_every_value_with_every_template_reads_as_in_python(run, server):
    """The message is what `template % value` gives; where that raises, template, value and reason are shown."""
    done = run(
        VALUES
        + """
import json
mm.init(level="trace")
expected = []
source = "def go(v):\\n" + "".join(f"    mm.log.info({t!r}, v)\\n" for t in templates)
exec(compile(source, "generated", "exec"))
for value in values:
    go(value)
    for template in templates:
        try:
            expected.append(template % value if isinstance(value, dict) else template % (value,))
        except Exception as error:
            expected.append([template, str(error)])
assert mm.flush()
print(json.dumps(expected))
"""
    )
    expected = json.loads(done.stdout)
    messages = server.captured.messages()
    assert len(messages) == len(expected)
    wrong = []
    for message, wanted in zip(messages, expected, strict=True):
        if isinstance(wanted, list):
            template, error = wanted
            if not (message.startswith(f"{template} % ") and error in message):
                wrong.append((message, wanted))
        elif message != wanted:
            wrong.append((message, wanted))
    assert not wrong


def test_values_of_all_kinds_beside_each_other(run, server):
    """In any number and order, with properties and without: few plain ones lie in a record of their own form."""
    done = run(
        """
import json, random
pace = random.Random(5)
texts = ["x" * length for length in (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 62, 63, 64, 65, 200)]
kinds = [0, 7, -1, 2**30, 2**62, 1.5, None, True, False, "\u00e9" * 9, "\u4e2d", "\U0001f600", *texts]
calls = [pace.choices(kinds, k=pace.randrange(1, 7)) for _ in range(600)]
mm.init(level="trace")
for number, values in enumerate(calls):
    template = "|".join(["%s"] * len(values))
    given = ", ".join(f"values[{index}]" for index in range(len(values)))
    source = f"mm.log.info({template!r}, {given}" + (", of=values[0])" if number % 3 == 0 else ")")
    code = compile(f"def call(values):\\n for _ in range(3):\\n  {source}\\n", "generated", "exec")
    scope = {"mm": mm}
    exec(code, scope)
    scope["call"](values)
assert mm.flush()
print(json.dumps(["|".join(map(str, values)) for values in calls for _ in range(3)]))
"""
    )
    assert server.captured.messages() == json.loads(done.stdout)


def test_random_floats_read_as_in_python(run, server):
    done = run(
        """
        import json, random, struct
        random.seed(7)
        floats = [struct.unpack("d", random.randbytes(8))[0] for _ in range(2000)]
        floats += [random.randint(-10**6, 10**6) / 2**random.randint(0, 12) for _ in range(2000)]
        mm.init()
        for x in floats:
            mm.log.info("%s %r %f %.2f %.0f %e %.1e %g %.3g %.12g", x, x, x, x, x, x, x, x, x, x)
        assert mm.flush()
        print(json.dumps(["%s %r %f %.2f %.0f %e %.1e %g %.3g %.12g" % ((x,) * 10) for x in floats]))
        """
    )
    assert server.captured.messages() == json.loads(done.stdout)


def test_misfits_never_raise(run, server):
    run(
        """
        mm.init()
        mm.log.info("two %s %s", 1)
        mm.log.info("none", 1, 2)
        mm.log.info("%d", "text")
        mm.log.info("100%", 5)
        mm.log.info("%(a)s and %(b)d", {"a": 1, "b": 2})
        mm.log.info("%(missing)s", {"a": 1})
        mm.log.info("%*d", 5, 42)
        mm.log.info("100% literal")
        mm.log.info({"not": "a str"})
        mm.log.info(7)
        mm.log.info(None)
        mm.log.info("%s" * 40, *range(40))
        """
    )
    messages = server.captured.messages()
    assert messages[0] == "two %s %s % (1,) [not formatted: not enough arguments for format string]"
    assert messages[1].startswith("none % (1, 2) [not formatted: not all arguments converted")
    assert messages[2].startswith("%d % ('text',) [not formatted: %d format: a real number is required")
    assert messages[3].startswith("100% % (5,) [not formatted: incomplete format")
    assert messages[4] == "1 and 2"
    assert messages[5] == "%(missing)s % {'a': 1} [not formatted: 'missing']"
    assert messages[6:] == [
        "   42",
        "100% literal",
        "{'not': 'a str'}",
        "7",
        "None",
        "".join(map(str, range(40))),
    ]


def test_hostile_objects(run, server):
    done = run(
        """
        import sys
        class Raises:
            def __str__(self): raise ValueError("no")
            def __repr__(self): raise KeyError("no")
        class NotText:
            def __str__(self): return 5
        class Logs:
            def __str__(self):
                mm.log.info("inside")
                return "outer"
        class Recurses:
            def __str__(self):
                mm.log.debug("%s", self)
                return "bottomless"
        class Mapping:
            def __getitem__(self, key): raise RuntimeError("no")
            def __len__(self): raise RuntimeError("no")
            def __repr__(self): raise RuntimeError("no")
        class Exits:
            def __str__(self): raise SystemExit(3)
        mm.init()
        for thing in (Raises(), NotText(), Logs(), Mapping()):
            mm.log.info("%s", thing)
            mm.log.info("%s and %d", thing, 1)
            mm.log.info(thing)
            mm.log.info("%d", thing)
            mm.log.info("plain", key=thing)
        recursive = []; recursive.append(recursive)
        mm.log.info("%s", recursive)
        sys.setrecursionlimit(200)
        mm.log.info("%s", Recurses())
        mm.flush()
        try:
            mm.log.info("%s", Exits())
        except SystemExit as error:
            print("exit", error.code)
        mm.log.info("end")
        """
    )
    assert done.stdout == "exit 3\n"
    messages = server.captured.messages()
    assert messages[0] == "<unprintable Raises object>"
    assert messages[1] == "<unprintable Raises object> and 1"
    assert messages[2] == "<unprintable Raises object>"
    assert messages[3].startswith("%d % (unprintable values) [not formatted:")
    assert "inside" in messages
    assert "outer" in messages
    assert "[[...]]" in messages
    assert "bottomless" in messages
    assert messages[-1] == "end"


def test_texts_of_all_kinds(run, server):
    run(
        """
        mm.init()
        mm.log.info("%s", "lone \\udc80 surrogate")
        mm.log.info("template with \\udcff surrogate")
        mm.log.info("template with é and %s", "ü")
        mm.log.info("nul\\x00 %s", "\\x00")
        mm.log.info("%s", "x" * 3_000_000)
        mm.log.info("%s %s", "é" * 300_000, "🚀" * 300_000)
        mm.log.info("y" * 900_000)
        mm.log.info("")
        """
    )
    messages = server.captured.messages()
    assert messages[:4] == [
        "lone \\udc80 surrogate",
        "template with \\udcff surrogate",
        "template with é and ü",
        "nul\0 \0",
    ]
    assert messages[4] == "x" * (1 << 20) + "… [cut: 3000000 characters]"
    assert messages[5] == "é" * 300_000 + " " + "🚀" * 300_000
    assert messages[6:] == ["y" * 900_000, ""]


def test_properties(run, server):
    run(
        """
        mm.init()
        for user in ("alice", "bob"):
            mm.log.info("login %d", 1, user=user, attempt=2, ratio=0.5, ok=True, nothing=None)
        mm.log.info("no values", where="here")
        mm.log.info(f"made {1 + 1}", kind="f-string")
        mm.log.warn("odd level", level="loud")
        mm.log.warn("known level", level="error")
        mm.log.info("many", **{f"k{i}": i for i in range(32)})
        mm.log.info("too many", **{f"k{i}": i for i in range(40)})
        """
    )
    events = [event for event in server.captured.events("log") if event["desc"]["target"] == "__main__"]
    assert {event["$type"] for event in events} == {"TaggedLogString"}
    login = [["attempt", "2"], ["ratio", "0.5"], ["ok", "True"], ["nothing", "None"]]
    assert [event["properties"] for event in events[:2]] == [[["user", name], *login] for name in ("alice", "bob")]
    assert [event["msg"] for event in events] == [
        "login 1",
        "login 1",
        "no values",
        "made 2",
        "odd level",
        "known level",
        "many",
        "too many",
    ]
    assert events[4]["properties"] == [["level_", "loud"]]
    assert events[5]["properties"] == [["level", "error"]]
    assert len(events[6]["properties"]) == len(events[7]["properties"]) == 32


def test_call_sites(run, server):
    """One place of the program is one description, even for equal literals, f-strings, lambdas and generated code."""
    run(
        """
        mm.init()
        for i in range(1000):
            mm.log.info(f"varying {i}")
        for i in range(3):
            mm.log.info("same"); mm.log.info("same")
        def forward(message, *values):
            mm.log.info(message, *values)
        forward("first"); forward("second %d", 2); forward("first")
        list(map(mm.log.info, ["mapped one", "mapped two"]))
        for i in range(3):
            exec(compile(f"mm.log.info('generated %d', {i})", f"generated-{i}", "exec"))
        """
    )
    captured = server.captured
    messages = captured.messages()
    assert messages[:1000] == [f"varying {i}" for i in range(1000)]
    assert messages[1000:1006] == ["same"] * 6
    assert messages[1006:] == [
        "first",
        "second 2",
        "first",
        "mapped one",
        "mapped two",
        "generated 0",
        "generated 1",
        "generated 2",
    ]
    events = captured.events("log")
    # The interpreter may rewrite the calling instruction once it is warm, which makes it another place once or twice.
    assert len({event["desc"]["fmt_str"] for event in events[:1000]}) <= 4
    assert {event["desc"]["file"] for event in events[-3:]} == {f"generated-{i}" for i in range(3)}


def test_more_call_sites_than_the_shortest_way_remembers(run, server):
    """They take turns, in any order and with any number of values, while levels and contexts change under way."""
    done = run(
        """
        import random
        mm.init(level="debug")
        random.seed(7)
        values = ["", ", 0", ", -5, 'text'", ", 1, 2.5, None", ", 1, True, 'x' * 70, 2 ** 40, 3"]
        lines = ["def f(i):"]
        for i in range(3000):
            given = values[i % 5]
            names = ", name=i" if i % 7 == 0 else ""
            template = " ".join([f"site {i} of %d"] + ["%s"] * (given.count(",")))
            lines.append(f"    if i == {i}: mm.log.info('{template}', i{given}{names})")
        exec(chr(10).join(lines))
        for round in range(3):
            for i in random.sample(range(3000), 3000):
                f(i)
            if round == 0:
                mm.set_log_level("warn")
                f(17)
                mm.set_log_level("debug")
            if round == 1:
                with mm.context(user="ann"):
                    f(18)
                    f(18)
        try:
            mm.log.info()
        except TypeError:
            print("refused")
        """
    )
    assert done.stdout == "refused\n"
    rest = ["", " 0", " -5 text", " 1 2.5 None", f" 1 True {'x' * 70} {2**40} 3"]
    expected = [f"site {i} of {i}{rest[i % 5]}" for i in range(3000)]
    events = server.captured.events("log")
    messages = [event["msg"] for event in events]
    assert sorted(messages) == sorted(expected * 3 + [expected[18]] * 2)
    with_user = 0
    for event, message in zip(events, messages, strict=True):
        properties = dict(event.get("properties", []))
        with_user += properties.pop("user", None) == "ann"
        i = int(message.split()[1])
        assert properties == ({"name": str(i)} if i % 7 == 0 else {})
    assert with_user == 2


def test_wrong_calls_are_type_errors(run):
    done = run(
        """
        mm.init()
        for call in (lambda: mm.log.info(), lambda: mm.span(), lambda: mm.span("a", "b")):
            try:
                call()
            except TypeError:
                print("TypeError")
        """
    )
    assert done.stdout.split() == ["TypeError"] * 3


def test_logs_of_new_sites_when_descriptions_are_used_up(run, server):
    run(
        """
        mm.init(level="trace")
        for part in range(70):
            exec(compile("mm.log.debug('one of many')\\n" * 1000, f"part-{part}", "exec"))
        mm.log.info("literal")
        mm.log.error("value %d", 1)
        mm.log.trace("trace")
        assert mm.flush(60)
        assert mm.status()["limits_reached"] == ["log_sites"]
        """
    )
    told = "too many places of log calls: "  # as soon as it is noticed
    assert sum(message.startswith(told) for message in server.captured.messages()) == 1
    events = [event for event in server.captured.events("log") if not event.get("msg", "").startswith(told)]
    messages = [event.get("msg", event["desc"]["fmt_str"]) for event in events]
    assert messages == ["one of many"] * 70_000 + ["literal", "value 1", "trace"]
    assert [event["desc"]["level"] for event in events[70_000:]] == [4, 2, 6]


def test_a_huge_text_is_no_template(run, server):
    run("mm.init()\nmm.log.info('y' * 3_000_000)\nmm.log.info('z' * 100_000)")
    [first, second] = server.captured.events("log")
    assert first["msg"] == "y" * (1 << 20) + "… [cut: 3000000 characters]"
    assert first["desc"]["fmt_str"] == second["desc"]["fmt_str"] == "%s"


def test_interrupts_while_values_are_looked_at_reach_the_program(run, server):
    run(
        """
        mm.init()
        class Rude(dict):
            def __len__(self): raise KeyboardInterrupt
        try:
            mm.log.info("%(a)s", Rude(a=1))
        except KeyboardInterrupt:
            mm.log.info("reached")
        """
    )
    assert server.captured.messages() == ["reached"]
