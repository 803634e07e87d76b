"""Which log events are recorded: levels of the program, of targets, of loggers."""

import pytest


def test_levels_by_target(run, server):
    """The longest target that matches at a dot holds, wherever the call sites were seen first."""
    run(
        """
        import types
        levels = ("trace", "debug", "info", "error", "fatal")
        source = "def speak():\\n    for level in levels: getattr(mm.log, level)('%s', __name__ + ' ' + level)"
        modules = []
        for name in ("myapp", "myapp.db", "myapp.db.pool", "myapp.dbx", "noisy", "noisy.lib", "noisy.lib.x", "other"):
            module = types.ModuleType(name)
            module.mm, module.levels = mm, levels
            exec(compile(source, name, "exec"), module.__dict__)
            modules.append(module)
        def everyone():
            for module in modules:
                module.speak()
            assert mm.flush()
        mm.init(level="info,myapp.db=debug,noisy.lib=off,myapp.db.pool=fatal")
        everyone()
        mm.set_log_level("off")
        mm.set_log_level("trace", "myapp.db")
        mm.log.error("mark")
        mm.logger("myapp.db").error("mark")
        everyone()
        """
    )
    messages = server.captured.messages()
    mark = messages.index("mark")

    def spoken(**of: str) -> list[str]:
        order = ("trace", "debug", "info", "error", "fatal")
        return [
            f"{name.replace('_', '.')} {level}"
            for name, least in of.items()
            if least != "off"
            for level in order[order.index(least) :]
        ]

    first = {"myapp": "info", "myapp_db": "debug", "myapp_db_pool": "fatal", "myapp_dbx": "info"}
    first |= {"noisy": "info", "noisy_lib": "off", "noisy_lib_x": "off", "other": "info"}
    assert messages[:mark] == spoken(**first)
    assert messages[mark + 1 :] == spoken(myapp_db="trace", myapp_db_pool="fatal")


def test_levels_from_the_environment(run, server):
    run(
        """
        mm.init()
        mm.log.info("not here")
        mm.logger("deep.below").debug("here")
        mm.logger("deeper").error("nor here")
        """,
        env={"MICROMEGAS_LOG": " warn , deep=debug, deeper=OFF "},
    )
    assert server.captured.messages() == ["here"]


def test_is_enabled_tells_what_would_be_recorded(run):
    run(
        """
        assert not mm.log.is_enabled("fatal")  # nothing is recorded yet
        mm.init(level="warn,a.b=debug,__main__=error")
        seen = [level for level in ("fatal", "error", "warn", "info", "debug", "trace") if mm.log.is_enabled(level)]
        assert seen == ["fatal", "error"], seen
        assert mm.log_enabled("debug", "a.b.c")
        assert not mm.log_enabled("trace", "a.b") and not mm.log_enabled("info", "a")
        for wrong in ("loud", "", 3, None):
            try:
                mm.log.is_enabled(wrong)
            except ValueError as error:
                assert repr(wrong) in str(error)
            else:
                raise AssertionError(wrong)
        mm.shutdown()
        assert not mm.log.is_enabled("fatal")
        """
    )


@pytest.mark.parametrize(
    "wrong", ["loud", "info,x=loud", "a=b=c", "a==info", "info;x=debug", "warn x=info", "x.*=debug", 20]
)
def test_a_level_that_does_not_exist_is_refused(run, wrong):
    done = run(
        f"""
        for attempt in (lambda: mm.init(level={wrong!r}), lambda: mm.set_log_level({wrong!r})):
            try:
                attempt()
            except ValueError as error:
                print(error)
        mm.init(level="info")
        """
    )
    assert done.stdout.count("log level") == 2


def test_loggers_share_a_call_site(run, server):
    """One statement that serves many loggers is a place of each, with the target and the level of each."""
    run(
        """
        mm.init(level="info,quiet=off,chatty=trace")
        loggers = [mm.logger(name) for name in ("one", "two", "quiet", "chatty.x")]
        assert mm.logger("one") is loggers[0] and loggers[0].target == "one" and mm.log.target is None
        for turn in range(3):
            for logger in loggers:
                logger.debug("debug %d", turn)
                logger.info("info")
        """
    )
    events = server.captured.events("log")
    seen = [(event["desc"]["target"], event.get("msg", event["desc"]["fmt_str"])) for event in events]
    expected = []
    for turn in range(3):
        expected += [("one", "info"), ("two", "info"), ("chatty.x", f"debug {turn}"), ("chatty.x", "info")]
    assert seen == expected
    assert {event["desc"]["line"] for event in events} == {8, 9}


def test_loggers_beyond_the_limit_share_a_target(run, server):
    run(
        """
        mm.init()
        loggers = [mm.logger(f"target {i}") for i in range(16_100)]
        loggers[0].info("first")
        loggers[-1].info("last")
        """
    )
    events = [(event["desc"]["target"], event.get("msg", "first or last")) for event in server.captured.events("log")]
    ours = "micromegas.recorder"
    assert [target for target, _ in events if target != ours] == ["target 0", "micromegas.other_loggers"]
    [told] = [message for target, message in events if target == ours]
    assert told.startswith("too many ")


def test_recording_off_and_on_again(run, server):
    run(
        """
        log = mm.logger("again")
        log.info("before")
        mm.init()
        log.info("first")
        assert mm.shutdown()
        log.info("between"); mm.log.fatal("between")
        mm.init()
        log.info("second")
        """
    )
    assert sorted(server.captured.messages()) == ["first", "second"]
