"""Carry the modules of this package to hosts as source, and put them in place there under their real names."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import types
from collections.abc import Sequence

PACKAGE = "sliceform.controller.on_host"
#: What `from sliceform.controller import ...` offers on a host without sliceform.
OFFERED = ("HostContext", "host_context", "initialize_jax")
#: The modules that hosts need.
_TRAVEL = ("agent", "channel", "context", "process", "processes")


def sources() -> dict[str, str]:
    """Return module name -> source text of all that hosts need; called on the driver."""
    from importlib.resources import files

    folder = files(PACKAGE)
    return {f"{PACKAGE}.{name}": folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in _TRAVEL}


def install(texts: dict[str, str]) -> None:
    """Make the shipped modules importable under their real names, before anything else is unpickled; idempotent."""
    if any(isinstance(finder, ShippedFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, ShippedFinder(texts))
    if not _installed():
        for name in ("sliceform", "sliceform.controller"):
            sys.modules[name] = _light_package(name)
        sys.modules["sliceform"].controller = sys.modules["sliceform.controller"]  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name == PACKAGE or name in texts]:
        del sys.modules[name]


def _installed() -> bool:
    """Whether this host has a sliceform of its own, which then serves all other names."""
    try:
        return importlib.util.find_spec("sliceform.controller") is not None
    except ImportError:
        return False


class ShippedFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the shipped modules ahead of installed ones, and runs each when it is first imported."""

    def __init__(self, texts: dict[str, str]) -> None:
        """Take module name -> source text."""
        self._texts = {PACKAGE: "", **texts}

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the shipped modules only."""
        if fullname not in self._texts:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname == PACKAGE)

    def create_module(self, _spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """Let the import system make it."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the source under a name that tracebacks can show lines of."""
        text = self._texts[module.__name__]
        filename = f"<sliceform {module.__name__.rpartition('.')[2]}.py>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        exec(compile(text, filename, "exec"), module.__dict__)  # noqa: S102 - our own source, from our own driver


def _light_package(name: str) -> types.ModuleType:
    module = types.ModuleType(name, "Offered on hosts where sliceform is not installed.")
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)

    def get(attribute: str) -> object:
        if name == "sliceform.controller" and attribute in OFFERED:
            return getattr(importlib.import_module(f"{PACKAGE}.context"), attribute)
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise ImportError(
            f"sliceform is not installed on this host; {name} offers only {', '.join(OFFERED)} here, not {attribute}"
        )

    module.__getattr__ = get  # type: ignore[method-assign]
    return module
