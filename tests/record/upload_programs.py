"""Programs whose upload is tested, and the secret that none of them may show."""

SECRET = "s3cr3t-that-must-not-show"

RECORD = """
import json
mm.init(flush_period=30)
for i in range(20): mm.log.info("x %d", i)
with mm.span("s"): pass
mm.metric("m").record(1)
print(json.dumps([mm.flush(20), mm.status()["last_error"]]))
"""
FAIL = """
import json, time
mm.init(flush_period=30)
mm.log.info("x")
arrived = mm.flush(0.3)
give_up = time.monotonic() + 20
while mm.status()["last_error"] is None and time.monotonic() < give_up: time.sleep(0.01)
print(json.dumps([arrived, mm.status()["last_error"]]))
mm.shutdown(0.3)
"""


def with_init(arguments: str, program: str = RECORD) -> str:
    """The program with further arguments of `init`."""
    return program.replace("flush_period=30", f"flush_period=30, {arguments}")
