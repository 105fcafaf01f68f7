"""``workbench list``: what exists, without importing it."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.cli.tables import place, print_json, print_rows
from workbench.core.errors import UnknownPart
from workbench.core.index import Index, scan
from workbench.core.part import did_you_mean


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("kind", nargs="?", help="list the parts of this kind (backbone or backbones)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plug-in file to list too")
    parser.add_argument("--json", action="store_true", help="print {kind: [names]}")


def run(args: argparse.Namespace) -> int:
    """Print the kinds and their parts, or the parts of one kind."""
    index = scan([Path(file) for file in args.plugin])
    if args.kind is None:
        if args.json:
            print_json(index.names())
        else:
            rows = [(kind, ", ".join(names), index.kinds[kind].summary) for kind, names in index.names().items()]
            print_rows(("kind", "parts", "what it is"), rows)
            print("`workbench list KIND` says more; `workbench show KIND PART` says all.")
        return 0
    kind = find_kind(index, args.kind)
    if args.json:
        print_json({kind: index.names()[kind]})
    else:
        entries = index.of(kind)
        rows = [(entry.name, entry.summary, place(entry.file, entry.line)) for entry in entries]
        print_rows((kind, "what it is", "where"), rows)
    return 0


def find_kind(index: Index, word: str) -> str:
    """The kind that a word names, in singular or plural.

    Raises:
        UnknownPart: with the nearest kind and all of them.
    """
    for kind in index.kinds:
        if word in (kind, kind + "s", kind + "es", kind.replace("_", "-"), kind.replace("_", "-") + "s"):
            return kind
    raise UnknownPart(f"there is no kind {word!r}.{did_you_mean(word, index.kinds)}")
