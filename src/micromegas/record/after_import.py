"""Does something once a module has been imported, without importing it: for what only some programs use.

Sits in `sys.meta_path` until then. Must never change what is imported.
"""

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


class _Loader:
    """The module's own loader, and then the action."""

    def __init__(self, loader: "object", action: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._action = action

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[assignment]
        self._loader.exec_module(module)  # type: ignore[attr-defined]
        self._action(module)


class AfterImport:
    """Has `action` called with the module of this name: at once if it is there, else when it has been imported."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._action = action
        module = sys.modules.get(name)
        if module is not None:
            action(module)
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> "ModuleSpec | None":
        if name != self._name:
            return None
        self.cancel()
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._action)  # type: ignore[assignment]
                return spec
        return None

    def cancel(self) -> None:
        """Not to be called any more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
