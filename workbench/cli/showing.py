"""``workbench show``: all about a part, a kind, a recipe, or the JSON Schema of recipes."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

from workbench.cli.listing import find_kind
from workbench.cli.places import plug_in
from workbench.cli.tables import place, print_json, print_rows
from workbench.core import index
from workbench.core import part as parts
from workbench.core.errors import UnknownPart, WorkbenchError
from workbench.core.part import KINDS, REQUIRED, Part, did_you_mean


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("what", help="a kind, a recipe's file, or one of the words `schema` and `kernels`")
    parser.add_argument("more", nargs="*", help="the part's name; for a recipe overrides such as train.steps=100")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to load first")
    parser.add_argument("--json", action="store_true", help="print data for another program")


def run(args: argparse.Namespace) -> int:
    """Tell a recipe, the schema, a kind and a part apart by their words."""
    if args.what.endswith((".yaml", ".yml")):
        return _recipe(args)
    if args.what == "schema":
        return _schema(args)
    if args.what == "kernels":
        return _kernels(args)
    if len(args.more) > 1:
        raise WorkbenchError("show one thing: a kind, a kind and a part's name, a recipe's file, or `schema`")
    known = index.scan([Path(file) for file in args.plugin])
    kind = find_kind(known, args.what)
    return _part(args, known, kind, args.more[0]) if args.more else _kind(args, known, kind)


def _recipe(args: argparse.Namespace) -> int:
    from workbench.core.tree import dump_yaml
    from workbench.recipe import load

    plug_in(args.plugin)
    resolved = load(args.what, args.more)
    if args.json:
        print_json({"hash": resolved.hash, "recipe": resolved.data})
    else:
        print(f"# {args.what}, resolved · hash {resolved.hash}")
        print(dump_yaml(resolved.data), end="")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from workbench.core.schema import json_schema
    from workbench.recipe import Recipe

    index.import_parts()
    plug_in(args.plugin)
    print_json(json_schema(Recipe))
    return 0


def _kernels(args: argparse.Namespace) -> int:
    """Every operation that has several implementations: which one runs here, and why not the others."""
    if args.more:
        raise WorkbenchError(f"`workbench show kernels` shows all of them; leave out {args.more[0]!r}")
    plug_in(args.plugin)
    from workbench.doctor import kernels

    device, precision, why, found = kernels()
    if args.json:
        print_json({"device": device, "precision": precision, "operations": found})
        return 0
    print(f"On {device} in {precision} ({why}); a run's log says what it picked.")
    rows = [(operation, *row) for operation, candidates in found.items() for row in candidates]
    print_rows(("operation", "kernel", "picked", "why"), rows)
    return 0


def _kind(args: argparse.Namespace, known: index.Index, kind: str) -> int:
    entry = known.kinds[kind]
    index.import_module(entry.module)
    cls = KINDS[kind]
    if args.json:
        names = known.names()[kind]
        print_json({"kind": kind, "class": entry.cls, "doc": inspect.getdoc(cls), "parts": names})
        return 0
    print(f"{kind}: {entry.cls}, {place(entry.file, entry.line)}\n\n{inspect.getdoc(cls)}\n")
    if cls.supplied:
        print(f"Supplied by the workbench to constructors that ask for it: {', '.join(cls.supplied)}.")
    print_rows((kind, "what it is", "where"), [(e.name, e.summary, place(e.file, e.line)) for e in known.of(kind)])
    return 0


def _part(args: argparse.Namespace, known: index.Index, kind: str, name: str) -> int:
    found = {entry.name: entry for entry in known.of(kind)}
    if name not in found:
        raise UnknownPart(f"there is no {kind} {name!r}.{did_you_mean(name, found)}")
    entry = found[name]
    index.import_parts(known)  # all of them: settings name the parts that fit, siblings bring defaults
    plug_in(args.plugin)
    part = KINDS[kind].lookup(name)
    rows = [_row(part, setting) for setting in parts.settings(part).values()]
    if args.json:
        print_json(
            {
                "kind": kind,
                "name": name,
                "class": entry.cls,
                "file": str(entry.file),
                "line": entry.line,
                "doc": inspect.getdoc(part),
                "settings": [dict(zip(("name", "type", "default", "doc"), row, strict=True)) for row in rows],
            }
        )
        return 0
    print(f"{kind} {name}: {entry.cls}, {place(entry.file, entry.line)}\n\n{_prose(part)}\n")
    if rows:
        print_rows(("setting", "type", "default", "what it is"), rows)
        if any(row[0] == "kernel" for row in rows):
            print("`workbench show kernels` says which kernels run here.")
    else:
        print("It has no settings.")
    return 0


def _row(part: type[Part], setting: parts.Setting) -> tuple[str, str, str, str]:
    """Name, type, default and doc of a setting, in words."""
    from workbench.core.node import choices
    from workbench.core.values import describe, shown

    default = part.usual.get(setting.name, setting.default)
    words = "required" if default is REQUIRED else _default(default) if setting.part else shown(default)
    if setting.part is None:
        return setting.name, describe(setting.annotation), words, setting.doc
    if default is REQUIRED:
        speakers = {name for kind in KINDS.values() for other in kind.registered.values() for name in other.usual}
        words = "what suits its siblings" if setting.name in speakers else words
    many = {"": "", "list": "list of ", "map": "map of "}[setting.many]
    names = ", ".join(choices(setting.part))
    kind = setting.part.kind or setting.part.__name__
    return setting.name, f"{many}{kind}{f' ({names})' if names else ''}", words, setting.doc


def _prose(part: type[Part]) -> str:
    """The docstring less its list of settings, which the table shows."""
    before, _, after = (inspect.getdoc(part) or "").partition("Settings:\n")
    rest = re.sub(r"\A(?:[ \t]+.*\n?|\n)+", "", after)
    return f"{before.strip()}\n\n{rest.strip()}".strip()


def _default(value: Any) -> str:
    """A default that is a part, or several, by name."""
    if isinstance(value, dict) and "type" not in value:
        return ", ".join(f"{name}: {_default(item)}" for name, item in value.items()) or "none"
    if isinstance(value, dict):
        rest = ", ".join(f"{name}: {item}" for name, item in value.items() if name != "type")
        return f"{value.get('type', '')}{f' ({rest})' if rest else ''}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_default(item) for item in value) or "none"
    return "none" if value is None else str(value)
