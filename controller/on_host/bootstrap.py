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
OFFERED = ("HostContext", "Stopped", "host_context", "initialize_jax")
#: What travels by value, inside what the driver hands to Ray.
_BY_VALUE = ("__init__.py", "bootstrap.py", "remote.py", "sigterm.py")


def sources() -> dict[str, str]:
    """Return module name -> source text of all that hosts need; called on the driver."""
    from importlib.resources import files

    return {
        f"{PACKAGE}.{file.name.removesuffix('.py')}": file.read_text(encoding="utf-8")
        for file in sorted(files(PACKAGE).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".py") and file.name not in _BY_VALUE
    }


def install(texts: dict[str, str]) -> None:
    """Make the shipped modules importable under their real names, before anything else is unpickled; idempotent."""
    if any(isinstance(finder, ShippedFinder) for finder in sys.meta_path):
        return
    installed = _installed()
    if not installed:
        for name in ("sliceform", "sliceform.controller"):
            sys.modules[name] = _light_package(name)
        sys.modules["sliceform"].controller = sys.modules["sliceform.controller"]  # type: ignore[attr-defined]
    sys.meta_path.insert(0, ShippedFinder(texts, alone=not installed))
    for name, text in texts.items():
        loaded = sys.modules.get(name)
        if loaded is not None and _source(loaded) != text:
            # Where the installed one says the same it stays: functions may hold on to it.
            del sys.modules[name]


def _source(module: types.ModuleType) -> str | None:
    loader = getattr(module.__spec__, "loader", None)
    return loader.get_source(module.__name__) if isinstance(loader, importlib.abc.InspectLoader) else None


def _installed() -> bool:
    """Whether this host has a sliceform of its own, which then serves all other names."""
    try:
        return importlib.util.find_spec("sliceform.controller") is not None
    except ModuleNotFoundError:
        return False


class ShippedFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the shipped modules ahead of installed ones, and runs each when it is first imported."""

    def __init__(self, texts: dict[str, str], *, alone: bool) -> None:
        """Take module name -> source text, and whether there is nothing else of sliceform on this host."""
        self._texts = {PACKAGE: "", **texts}
        self._alone = alone

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the shipped modules, and say why any other of sliceform's is not there.

        Raises:
            ModuleNotFoundError: sliceform is not installed on this host. `from sliceform.controller import X`
                comes here, too, for what the light package does not have.

        """
        if fullname not in self._texts:
            if self._alone and fullname.startswith("sliceform."):
                raise ModuleNotFoundError(_missing(fullname), name="sliceform")
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


def _missing(name: str) -> str:
    return (
        f"sliceform is not installed on this host, so there is no {name}: here, sliceform.controller offers only "
        f"{', '.join(OFFERED)}"
    )


def _light_package(name: str) -> types.ModuleType:
    module = types.ModuleType(name, "Offered on hosts where sliceform is not installed.")
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)

    def get(attribute: str) -> object:
        if name == "sliceform.controller" and attribute in OFFERED:
            return getattr(importlib.import_module(f"{PACKAGE}.context"), attribute)
        # Pickle asks every module for names that it does not have, and bears nothing but this error.
        raise AttributeError(_missing(f"{name}.{attribute}"), name=attribute, obj=module)

    module.__getattr__ = get  # type: ignore[method-assign]
    return module
