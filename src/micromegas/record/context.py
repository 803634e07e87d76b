"""Properties that log events get without being told each time: of the running context, and of the whole process.

A context is that of `contextvars`: a task inherits what was bound where it was created, and what it binds is its own.
"""

from contextvars import Token
from types import TracebackType

from micromegas import _core

TYPE_CHECKING = False  # for type checkers, which know the name, without the cost of importing `typing`
if TYPE_CHECKING:
    from micromegas._core import PropertySet


def properties(**values: object) -> "PropertySet":
    """A set of properties, to be made once and given often: `log.info("…", properties=the_set)`.

    Sorted and interned: equal sets are one object. Values become text now. At most 64 properties in a set (what is
    beyond is counted in `status()["refused_values"]`), each text at most 8192 characters. Interned sets are kept for
    ever, so make them of what repeats; after 65 536 of them new ones are no longer shared.
    """
    return _core.make_properties(values, True)


def bound_properties() -> dict[str, str]:
    """What is bound to the running context."""
    bound = _core.context_properties.get(None)
    return dict(bound.pairs) if bound is not None else {}


def _merged(values: dict[str, object]) -> "PropertySet":
    _core.use_context()
    return _core.make_properties({**bound_properties(), **values}, False)


def bind(**values: object) -> None:
    """Give all later log events of the running context these properties; a property of the call itself wins."""
    _core.context_properties.set(_merged(values))


def unbind(*names: str) -> None:
    """Take names away from what is bound to the running context."""
    kept = {name: value for name, value in bound_properties().items() if name not in names}
    _core.context_properties.set(_core.make_properties(kept, False))


def clear_context() -> None:
    """Take all away that is bound to the running context."""
    _core.context_properties.set(None)


class context:
    """`with context(user="alice"):` binds properties for the block, beside what is bound; then all is as before."""

    __slots__ = ("_tokens", "_values")

    def __init__(self, /, **values: object) -> None:
        self._values = values
        self._tokens: list[Token[PropertySet | None]] = []

    def __enter__(self) -> "context":
        self._tokens.append(_core.context_properties.set(_merged(self._values)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token = self._tokens.pop()
        try:  # noqa: SIM105 - contextlib would be one more import
            _core.context_properties.reset(token)
        except ValueError:
            # left in another context than it was entered in: a generator that was closed elsewhere
            pass


def set_global_properties(**values: object) -> None:
    """Give all later log events of this process these properties, in the place of those set before; none: no more.

    What is bound to a context wins over them, and a property of the call itself over both.
    """
    _core.set_global_properties(_core.make_properties(values, True) if values else None)
