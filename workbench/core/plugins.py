"""Plug-ins: Python files named by a recipe (``plugins: [./my_gru.py]``), loaded by path under a name of their
own.

Installed packages plug in through the entry-point group ``workbench.parts`` instead (see
`workbench.core.index`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import WorkbenchError
from workbench.core.part import KINDS, Part

PREFIX = "workbench_plugin_"
"""How the modules of plug-in files begin."""


class PluginError(WorkbenchError):
    """A plug-in file that cannot be loaded: file, line and why."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in file. ``sha256`` is of its content; ``module`` its name in `sys.modules`."""

    path: Path
    sha256: str
    module: str

    def parts(self) -> list[type[Part]]:
        """The parts this file registered, by kind and name."""
        return [
            part
            for _, kind in sorted(KINDS.items())
            for _, part in sorted(kind.registered.items())
            if part.__module__ == self.module
        ]


def load_plugin(path: Path | str) -> Plugin:
    """Run a plug-in file, once per content: the parts it registers can then be looked up.

    Raises:
        PluginError: no such file, or it raised; what it had registered by then is taken back.
    """
    file = Path(path).resolve() if "\0" not in str(path) else Path()
    if file.suffix != ".py" or not file.is_file():
        raise PluginError(f"{path}: {'there is no such file' if file.suffix == '.py' else 'a plug-in is a .py file'}")
    source = file.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    name = f"{PREFIX}{file.stem}_{digest[:12]}"
    plugin = Plugin(file, digest, name)
    if name in sys.modules:
        return plugin
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    restore = _snapshot()
    sys.modules[name] = module
    try:
        # the bytes that were hashed are the bytes that run; no __pycache__ is written beside the recipe
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        restore()
        raise PluginError(f"{_place(file, error)}: {type(error).__name__}: {error}") from error
    return plugin


def plugin_file(part: type[object]) -> Path | None:
    """The plug-in file that a class comes from; None for a class of a package."""
    module = sys.modules.get(part.__module__)
    if module is None or not part.__module__.startswith(PREFIX):
        return None
    return Path(str(module.__file__))


def plugin_version(part: type[object]) -> str:
    """What changes when the plug-in file that a class comes from does: "" for a class of a package."""
    return part.__module__.rpartition("_")[2] if part.__module__.startswith(PREFIX) else ""


@contextmanager
def isolated() -> Iterator[None]:
    """What is plugged in inside is gone after: recipes checked one after the other see their own plug-ins
    only."""
    restore = _snapshot()
    try:
        yield
    finally:
        restore()


def _snapshot() -> Callable[[], None]:
    """A function that takes back all that plug-in files register from now on."""
    loaded = {name for name in sys.modules if name.startswith(PREFIX)}
    kinds = dict(KINDS)
    parts = {kind: dict(cls.registered) for kind, cls in KINDS.items()}

    def restore() -> None:
        for name in [name for name in sys.modules if name.startswith(PREFIX) and name not in loaded]:
            del sys.modules[name]
        for kind, cls in list(KINDS.items()):
            if kind not in kinds and cls.__module__.startswith(PREFIX):
                del KINDS[kind]
                continue
            before = parts.get(kind, {})
            for name, part in list(cls.registered.items()):
                if part.__module__.startswith(PREFIX) and before.get(name) is not part:
                    del cls.registered[name]
            cls.registered.update(before)

    return restore


def _place(file: Path, error: BaseException) -> str:
    """``file:line`` of the plug-in's own last line in a traceback."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)
