"""The reference as Markdown, made of parts: what a kind asks, what each part takes, declares and is taken from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workbench.cli.describing import Member, bases, contract, declared, prose, rows
from workbench.core import index
from workbench.core.part import KINDS, Part, Section, summary

KEEP = re.compile(r"(``.+?``|`[^`\n]+`)")


def kind_page(known: index.Index, kind: str) -> str:
    """All about a kind and its parts. All parts must have been imported.

    Headings: the kind first, then its contract and each part, by name.
    """
    entry, cls = known.kinds[kind], KINDS[kind]
    lines = [f"# {spoken(kind)}", "", f"`{entry.cls}`, {_place(entry)}", "", *markdown(prose(cls)), ""]
    if cls.supplied:
        names = ", ".join(f"`{name}`" for name in cls.supplied)
        lines += [f"Supplied by the workbench to constructors that ask for it: {names}.", ""]
    lines += ["## Contract", "", *_contract(contract(cls))]
    for base in bases(known, kind):
        lines += [f"`{base.cls.__module__}.{base.cls.__name__}`: {inline(summary(base.cls))}", ""]
        lines += _contract([member for member in base.members if member.must])
    for one in known.of(kind):
        lines += [f"## {one.name}", "", *_part(cls.lookup(one.name)), f"Defined: {_place(one)}.", ""]
    return "\n".join(lines)


def sections_page() -> str:
    """The fixed groups of settings, of recipes and of grids: those without a ``type:``."""
    lines = ["# Sections of a recipe", "", "Groups of settings that every recipe, or every grid, has: no `type:`.", ""]
    for cls in sorted(_all(Section), key=lambda cls: (cls.__module__, cls.__name__)):
        lines += [f"## {cls.__name__}", "", *_part(cls), f"Defined: `{cls.__module__}`.", ""]
    return "\n".join(lines)


def spoken(kind: str) -> str:
    """A kind as a heading."""
    return kind.replace("_", " ").capitalize()


def table(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line; cells are Markdown, pipes in them are written as entities."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in cells]
    return [*lines, ""]


def code(text: str) -> str:
    """Text as code that a table can hold: a union is written in words."""
    words = text.replace(" | ", " or ").replace("|", "/").replace("`", "'")
    return f"`{words}`" if words else ""


def inline(text: str) -> str:
    """A docstring's line as Markdown: its code as code, everything else literally."""
    pieces = KEEP.split(text)
    for number, piece in enumerate(pieces):
        if number % 2:
            pieces[number] = f"`{piece.strip('`')}`"
        else:
            pieces[number] = piece.replace("<", "&lt;").replace("*", "\\*")
    return "".join(pieces)


def markdown(doc: str) -> list[str]:
    """A docstring's paragraphs as Markdown; what ``::`` announces stays a block of code."""
    lines: list[str] = []
    announced = False
    for paragraph in re.split(r"\n[ \t]*\n", doc):
        if announced and paragraph.startswith((" ", "\t")):
            lines += [f"    {line}" for line in paragraph.splitlines()]
        else:
            announced = paragraph.endswith("::")
            text = paragraph.removesuffix(":") if announced else paragraph
            lines += [inline(line.strip()) for line in text.splitlines()]
        lines.append("")
    return lines


def _part(part: type[Part]) -> Iterator[str]:
    yield from markdown(prose(part))
    found = rows(part)
    if found:
        cells = [(code(row.name), inline(row.type), inline(row.default), inline(row.doc)) for row in found]
        yield from table(("setting", "type", "default", "what it is"), cells)
    else:
        yield from ("It has no settings.", "")
    says = declared(part) if part.kind else []
    if says:
        yield from (f"Declares: {'; '.join(f'{code(name)} {inline(value)}' for name, value in says)}.", "")


def _contract(members: Sequence[Member]) -> list[str]:
    cells = [
        (code(member.signature), "to be written" if member.must else "inherited", inline(member.doc))
        for member in members
    ]
    return table(("method", "", "what it does"), cells) if cells else []


def _place(entry: index.Entry) -> str:
    """``package/file.py`` of a shipped class, the file of a plug-in."""
    if not entry.module:
        return f"`{Path(entry.file).name}`"
    return f"`{'/'.join(entry.module.split('.'))}.py`"


def _all(cls: type[Section]) -> Iterator[type[Section]]:
    for one in cls.__subclasses__():
        if one.__module__.split(".")[0] in index.PACKAGES:
            yield one
        yield from _all(one)
