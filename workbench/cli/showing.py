"""``workbench show``: all about a part, a kind, a recipe, or the JSON Schema of recipes."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path

from workbench.cli.describing import Member, bases, contract, declared, prose, rows
from workbench.cli.listing import find_kind
from workbench.cli.places import plug_in
from workbench.cli.tables import place, print_json, print_rows
from workbench.core import index
from workbench.core.errors import UnknownPart, WorkbenchError
from workbench.core.part import KINDS, did_you_mean, summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("what", help="a kind, a recipe's file, or one of the words `schema`, `reference` and `kernels`")
    parser.add_argument("more", nargs="*", help="the part's name; for a recipe overrides such as train.steps=100")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to load first")
    parser.add_argument("--json", action="store_true", help="print data for another program")


def run(args: argparse.Namespace) -> int:
    """Tell a recipe, the schema, a kind and a part apart by their words."""
    from workbench.core.reading import is_yaml

    if is_yaml(args.what):
        return _recipe(args)
    if args.what == "schema":
        return _schema(args)
    if args.what == "kernels":
        return _kernels(args)
    if args.what == "reference":
        return _reference(args)
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


def _reference(args: argparse.Namespace) -> int:
    """Markdown of everything, or of the kinds named."""
    from workbench.cli import reference
    from workbench.cli.fitting import fits_page

    known = index.scan([Path(file) for file in args.plugin])
    index.import_parts(known)
    plug_in(args.plugin)
    kinds = [find_kind(known, word) for word in args.more] or sorted(known.kinds)
    pages = {kind: reference.kind_page(known, kind) for kind in kinds}
    if not args.more:
        pages |= {"sections": reference.sections_page(), "fits": fits_page()}
    print_json(pages) if args.json else print("\n".join(pages.values()))
    return 0


def _kind(args: argparse.Namespace, known: index.Index, kind: str) -> int:
    entry = known.kinds[kind]
    index.import_module(entry.module)
    cls = KINDS[kind]
    members, between = contract(cls), bases(known, kind)
    if args.json:
        names = known.names()[kind]
        print_json(
            {
                "kind": kind,
                "class": entry.cls,
                "doc": inspect.getdoc(cls),
                "parts": names,
                "contract": [member._asdict() for member in members],
                "bases": {base.cls.__name__: [member._asdict() for member in base.members] for base in between},
            }
        )
        return 0
    print(f"{kind}: {entry.cls}, {place(entry.file, entry.line)}\n\n{inspect.getdoc(cls)}\n")
    if cls.supplied:
        print(f"Supplied by the workbench to constructors that ask for it: {', '.join(cls.supplied)}.")
    _print_contract("a part of this kind has", members)
    for base in between:
        if any(member.must for member in base.members):
            print(f"{base.cls.__name__} ({base.cls.__module__}): {summary(base.cls)}")
            _print_contract(f"a {base.cls.__name__} also has", base.members)
    print_rows((kind, "what it is", "where"), [(e.name, e.summary, place(e.file, e.line)) for e in known.of(kind)])
    return 0


def _print_contract(title: str, members: Sequence[Member]) -> None:
    rows = [(member.signature, "yes" if member.must else "inherited", member.doc) for member in members]
    print_rows((title, "to be written", "what it does"), rows)


def _part(args: argparse.Namespace, known: index.Index, kind: str, name: str) -> int:
    found = {entry.name: entry for entry in known.of(kind)}
    if name not in found:
        raise UnknownPart(f"there is no {kind} {name!r}.{did_you_mean(name, found)}")
    entry = found[name]
    index.import_parts(known)  # all of them: settings name the parts that fit, siblings bring defaults
    plug_in(args.plugin)
    part = KINDS[kind].lookup(name)
    found_rows, says = rows(part), declared(part)
    if args.json:
        print_json(
            {
                "kind": kind,
                "name": name,
                "class": entry.cls,
                "file": str(entry.file),
                "line": entry.line,
                "doc": inspect.getdoc(part),
                "settings": [row._asdict() for row in found_rows],
                "declares": dict(says),
            }
        )
        return 0
    print(f"{kind} {name}: {entry.cls}, {place(entry.file, entry.line)}\n\n{prose(part)}\n")
    if found_rows:
        print_rows(("setting", "type", "default", "what it is"), found_rows)
        if any(row.name == "kernel" for row in found_rows):
            print("`workbench show kernels` says which kernels run here.")
    else:
        print("It has no settings.")
    if says:
        words = "; ".join(f"{name} {value}" for name, value in says)
        print(f"It declares: {words}. `workbench show {kind}` says what that means.")
    return 0
