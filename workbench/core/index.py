"""What exists: kinds and parts found by reading source files with `ast`, so that listing them imports nothing
heavy.

A kind is a class statement ``class Graph(…, kind="graph", …)``; a part is a class under
``@Graph.register("name")``. Sources are the four code packages, installed plug-ins (entry-point group
``workbench.parts``) and files named.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import WorkbenchError

PACKAGES = ("workbench", "backbones", "graphs", "samplers")
GROUP = "workbench.parts"


@dataclass(frozen=True)
class Entry:
    """One class: a part (``name`` as in ``type:``) or a kind (``name`` empty), and where it stands.

    ``module``: the name to import, empty for a plug-in file; ``summary``: the docstring's first line.
    """

    kind: str
    name: str
    cls: str
    file: Path
    line: int
    summary: str
    module: str = ""


@dataclass(frozen=True)
class Index:
    """Kinds by name, and parts sorted by kind and name."""

    kinds: dict[str, Entry]
    parts: tuple[Entry, ...]

    def of(self, kind: str) -> list[Entry]:
        """The parts of a kind."""
        return [entry for entry in self.parts if entry.kind == kind]

    def names(self) -> dict[str, list[str]]:
        """Names of the parts by kind; kinds without parts too."""
        return {kind: [entry.name for entry in self.of(kind)] for kind in sorted(self.kinds)}


@dataclass(frozen=True)
class _Source:
    file: Path
    module: str
    tree: ast.Module


def scan(files: Sequence[Path] = ()) -> Index:
    """The index of the packages, of installed plug-ins and of further plug-in ``files``.

    Raises:
        WorkbenchError: one of ``files`` is no readable Python; with file and line.
    """
    sources = [
        *_package_sources(),
        *_installed_sources(),
        *(_source(file, "", strict=True) for file in files),
    ]
    known = [source for source in sources if source is not None]
    kinds: dict[str, Entry] = {}
    kind_of: dict[tuple[str, str], str] = {}  # (module, class) and ("", class) → kind, for the decorators
    for source in known:
        for node in _classes(source.tree.body):
            kind = _declared_kind(node)
            if kind:
                kinds.setdefault(kind, _entry(source, node, kind, ""))
                kind_of[source.module or str(source.file), node.name] = kind
                kind_of.setdefault(("", node.name), kind)
    parts: dict[tuple[str, str], Entry] = {}
    for source in known:
        here, imported = source.module or str(source.file), _imported(source.tree)
        for node in _classes(source.tree.body):
            for base, name in _registrations(node):
                there = imported.get(base, ("", base))
                of = kind_of.get((here, base)) or kind_of.get(there) or kind_of.get(("", there[1]))
                if of is not None:
                    parts.setdefault((of, name), _entry(source, node, of, name))
    return Index(dict(sorted(kinds.items())), tuple(entry for _, entry in sorted(parts.items())))


def import_parts(index: Index | None = None) -> None:
    """Import every module that declares a kind or registers a part, installed plug-ins included.

    Raises:
        WorkbenchError: a module cannot be imported.
    """
    if index is None:
        _import_all()
        return
    modules = dict.fromkeys(entry.module for entry in (*index.kinds.values(), *index.parts) if entry.module)
    for module in (*modules, *(point.module for point in _entry_points())):
        import_module(module)


@functools.cache
def _import_all() -> None:
    """Once per process: what is imported stays, and installed packages do not change under us."""
    import_parts(scan())


def import_module(name: str) -> None:
    """Import one module by name.

    Raises:
        WorkbenchError: it cannot be imported; says why and, for what is not installed, what to install.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise WorkbenchError(f"{name} needs the package {error.name!r}, which is not installed") from error
    except Exception as error:
        raise WorkbenchError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def contract_modules(index: Index) -> list[str]:
    """Modules called ``contract`` in the packages that declare kinds: they check parts against their
    contracts."""
    packages = dict.fromkeys(entry.module.rpartition(".")[0] for entry in index.kinds.values() if entry.module)
    files = {entry.module.rpartition(".")[0]: entry.file.parent for entry in index.kinds.values() if entry.module}
    return [f"{package}.contract" for package in packages if (files[package] / "contract.py").is_file()]


def _package_sources() -> Iterator[_Source | None]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            root = Path(folder)
            for file in sorted(root.rglob("*.py")):
                names = (package, *file.relative_to(root).with_suffix("").parts)
                yield _source(file, ".".join(names).removesuffix(".__init__"))


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def _installed_sources() -> Iterator[_Source | None]:
    for point in _entry_points():
        first, *rest = point.module.split(".")
        try:
            spec = importlib.util.find_spec(first)
        except (ImportError, ValueError):
            continue
        if spec is None:
            continue
        if not rest and spec.origin is not None:
            yield _source(Path(spec.origin), first)
            continue
        for folder in spec.submodule_search_locations or ():
            stem = Path(folder).joinpath(*rest)
            for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                if file.is_file():
                    yield _source(file, point.module)


def _source(file: Path, module: str, strict: bool = False) -> _Source | None:
    """A file's syntax tree; None where nothing in it can be a kind or a part (most files: reading is
    enough)."""
    try:
        text = file.read_text(encoding="utf-8")
        if not strict and ".register(" not in text and "kind=" not in text:
            return None
        return _Source(file, module, ast.parse(text, filename=str(file)))
    except SyntaxError as error:
        if strict:
            raise WorkbenchError(f"{file}:{error.lineno or 0}: {error.msg}") from error
    except (OSError, ValueError) as error:
        if strict:
            raise WorkbenchError(f"{file}: cannot be read: {error}") from error
    return None


def _classes(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _classes(node.body)
            yield from _classes(node.orelse)


def _declared_kind(node: ast.ClassDef) -> str:
    for keyword in node.keywords:
        if keyword.arg == "kind" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
            return keyword.value.value
    return ""


def _registrations(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """(class that registers, name) of each ``@Kind.register("name")`` above a class."""
    for call in node.decorator_list:
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "register"
            and len(call.args) == 1
            and isinstance(call.args[0], ast.Constant)
            and isinstance(call.args[0].value, str)
        ):
            base = call.func.value
            yield (
                (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")),
                call.args[0].value,
            )


def _imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Local name → (module, class) of what is imported by name: ``from graphs.base import Graph as G``."""
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _entry(source: _Source, node: ast.ClassDef, kind: str, name: str) -> Entry:
    doc = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return Entry(kind, name, node.name, source.file, node.lineno, " ".join(doc.split()), source.module)
