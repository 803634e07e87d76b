"""What type checkers must refuse; each line says which error."""

import micromegas as mm


@mm.trace
def load(path: str, *, retries: int = 3) -> bytes:
    return path.encode() * retries


load(1)  # type: ignore[arg-type]
load("a", retry=2)  # type: ignore[call-arg]
load("a").upper().encode()  # type: ignore[attr-defined]
mm.init(urll="x")  # type: ignore[call-arg]
mm.init(flush_period="1")  # type: ignore[arg-type]
mm.metric("m").record("1")  # type: ignore[arg-type]
mm.metric("m").record_with("1", user="ann")  # type: ignore[arg-type]
mm.nothing  # type: ignore[attr-defined] # noqa: B018
mm.log.shout("x")  # type: ignore[attr-defined]
