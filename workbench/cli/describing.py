"""What a kind asks of its parts, and what a part takes and declares, in words: for the terminal and the reference."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from workbench.core import index
from workbench.core import part as parts
from workbench.core.part import KINDS, REQUIRED, Part


class Member(NamedTuple):
    """A method or property of a contract: as it is called, whether a part must write it, its first paragraph."""

    signature: str
    must: bool
    doc: str


class Base(NamedTuple):
    """A class between a kind and its parts that a part of one's own may begin with, and what it asks for itself."""

    cls: type[Part]
    members: Sequence[Member]


class Row(NamedTuple):
    """A setting in words."""

    name: str
    type: str
    default: str
    doc: str


def contract(cls: type[Part]) -> list[Member]:
    """The public methods and properties that a class itself adds to its bases', in the order of the source."""
    return [found for name, value in vars(cls).items() if (found := _member(name, value)) is not None]


def declarations(cls: type[Part]) -> list[str]:
    """Names of the class attributes that a kind says parts may set, in the order of the source."""
    given = {name for one in cls.__mro__ for name in vars(one)}
    return [name for name in vars(cls).get("__annotations__", {}) if not name.startswith("_") and name in given]


def declared(part: type[Part]) -> list[tuple[str, str]]:
    """(name, value) of what a part declares beside its settings: what fits it is read from that."""
    kind = KINDS[part.kind]
    names = [name for name in declarations(kind) if name not in vars(Part)]
    return [(name, _value(getattr(part, name))) for name in names]


def bases(known: index.Index, kind: str) -> list[Base]:
    """Classes of a kind that no name is registered for and that add methods: what parts of one's own may begin with."""
    for entry in known.of(kind):
        if entry.module:
            index.import_module(entry.module)
    registered = set(KINDS[kind].registered.values())
    found = [Base(cls, contract(cls)) for cls in _below(KINDS[kind])]
    return [
        base
        for base in found
        if base.cls not in registered and base.members and base.cls.__doc__ and not base.cls.__name__.startswith("_")
    ]


def rows(part: type[Part]) -> list[Row]:
    """The settings of a part or a section; parts must have been imported for the names that fit."""
    return [_row(part, setting) for setting in parts.settings(part).values()]


def prose(part: type[Part]) -> str:
    """The docstring less its list of settings, which a table shows."""
    before, _, after = (inspect.getdoc(part) or "").partition("Settings:\n")
    rest = re.sub(r"\A(?:[ \t]+.*\n?|\n)+", "", after)
    return f"{before.strip()}\n\n{rest.strip()}".strip()


def _below(cls: type[Part]) -> Iterator[type[Part]]:
    """All subclasses, each once, nearest first."""
    for one in dict.fromkeys(cls.__subclasses__()):
        yield one
        yield from _below(one)


def _member(name: str, value: Any) -> Member | None:
    called = name == "__call__"
    function = getattr(value, "__func__", value)  # of a class or static method
    if isinstance(value, property):
        words, function = name, value.fget
    elif inspect.isfunction(function):
        words = f"{name}{_signature(function)}"
    else:
        return None
    doc = inspect.getdoc(function) or ""
    if (name.startswith("_") and not called) or not doc:
        return None
    return Member(words, getattr(function, "__isabstractmethod__", False), " ".join(doc.partition("\n\n")[0].split()))


def _signature(function: Any) -> str:
    """Arguments and result as the source writes them, without ``self``."""
    signature = inspect.signature(function)
    arguments = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    text = str(signature.replace(parameters=arguments))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _value(value: Any) -> str:
    """A declared value in a word or two."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(map(_value, value))) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, property):
        return "depends on its settings"
    if value is None or value == "":
        return "none"
    return _default(value) if isinstance(value, dict) else str(value)


def _row(part: type[Part], setting: parts.Setting) -> Row:
    from workbench.core.node import choices
    from workbench.core.values import describe, shown

    default = part.usual.get(setting.name, setting.default)
    words = "required" if default is REQUIRED else _default(default) if setting.part else shown(default)
    if setting.part is None:
        return Row(setting.name, describe(setting.annotation), words, setting.doc)
    if default is REQUIRED:
        speakers = {name for kind in KINDS.values() for other in kind.registered.values() for name in other.usual}
        words = "what suits its siblings" if setting.name in speakers else words
    many = {"": "", "list": "list of ", "map": "map of "}[setting.many]
    names = ", ".join(choices(setting.part))
    kind = setting.part.kind or setting.part.__name__
    return Row(setting.name, f"{many}{kind}{f' ({names})' if names else ''}", words, setting.doc)


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
