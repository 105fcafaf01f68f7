"""Kinds of parts and their registers: a part's typed constructor is its whole schema.

A *kind* is an abstract base class declared with ``kind=``; a *part* is a concrete class registered under a
name. A recipe names it by ``type:`` and gives its settings; what the workbench itself knows (``supplied``: the
vocabulary, the length …) is passed by name to constructors that ask for it and is no setting::

    class Graph(Part, kind="graph", supplied=("vocab",)): ...

    @Graph.register("absorbing")
    class Absorbing(Graph):
        def __init__(self, vocab: int, floor: Positive = 1e-3) -> None: ...

Defaults that are parts themselves stand in the class variable ``usual`` (setting → ``{"type": …}``): a part's own
``usual`` fills its own settings, a *sibling's* ``usual`` goes first (a graph knows its usual noise).
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union

from workbench.core.errors import PartDefinitionError, Problem, UnknownPart

if TYPE_CHECKING:
    from workbench.core.spec import Node

P = TypeVar("P", bound="Part")
REQUIRED: Any = inspect.Parameter.empty
KINDS: dict[str, type[Part]] = {}
"""Every kind by name, in order of declaration."""


@dataclass(frozen=True)
class Setting:
    """One settable constructor argument of a part.

    ``part`` is the kind's class when the value is itself a part; ``many`` when it is a list of them; ``optional``
    when ``None`` is allowed.
    """

    name: str
    annotation: Any
    default: Any
    doc: str = ""
    part: type[Part] | None = None
    many: bool = False
    optional: bool = False

    @property
    def required(self) -> bool:
        """Whether the signature has no default."""
        return self.default is REQUIRED


class Part(ABC):
    """Base of everything a recipe can name. Subclass a *kind*, not this."""

    kind: ClassVar[str] = ""
    type_name: ClassVar[str] = ""
    supplied: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[Mapping[str, Any]] = {}
    registered: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(
        cls, kind: str | None = None, supplied: tuple[str, ...] | None = None, **rest: Any
    ) -> None:
        """Declare a kind (``kind=``) or check nothing yet: registration checks a part."""
        super().__init_subclass__(**rest)
        if kind is not None:
            if kind in KINDS and KINDS[kind].__qualname__ != cls.__qualname__:
                raise PartDefinitionError(f"kind {kind!r} is already {KINDS[kind].__qualname__}")
            cls.kind, cls.registered = kind, {}
            KINDS[kind] = cls
        if supplied is not None:
            cls.supplied = supplied

    @classmethod
    def register(cls, name: str) -> Callable[[type[P]], type[P]]:
        """Name a part of this kind.

        Raises:
            PartDefinitionError: the name is taken by another class, the class is not of this kind, or its
                constructor cannot be a schema.
        """

        def put(part: type[P]) -> type[P]:
            if not issubclass(part, cls):
                raise PartDefinitionError(f"{part.__qualname__} is registered as a {cls.kind} but is no {cls.__name__}")
            taken = cls.registered.get(name)
            if taken is not None and origin(taken) != origin(part):
                raise PartDefinitionError(
                    f"{cls.kind} {name!r} is taken by {origin(taken)}; choose another name for {origin(part)}"
                )
            settings(part)  # refuses *args, **kwargs and unannotated settings here, not in the middle of a run
            part.type_name = name
            cls.registered[name] = part
            return part

        return put

    @classmethod
    def names(cls) -> list[str]:
        """Names of the registered parts of this kind, sorted."""
        return sorted(cls.registered)

    @classmethod
    def lookup(cls: type[P], name: str) -> type[P]:
        """The part of this kind called ``name``.

        Raises:
            UnknownPart: with the nearest name and the list of what exists.
        """
        try:
            return typing.cast("type[P]", cls.registered[name])
        except KeyError:
            raise UnknownPart(f"no {cls.kind} {name!r}.{did_you_mean(name, cls.names())}") from None

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Problems of this part beside the others of a resolved recipe: declared here, collected while resolving.

        ``node`` is this part's resolved node (``node.settings``, ``node.path``); ``root`` the whole recipe's.
        Override in the class that owns the relation and call ``super()``.
        """
        yield from ()


class Section(Part):
    """A fixed group of settings in a recipe (``data:``, ``train:``): a schema without a ``type:``."""


def settings(part: type[Part]) -> dict[str, Setting]:
    """The settings of a part, read from its constructor: all arguments but ``self`` and those supplied.

    Raises:
        PartDefinitionError: the constructor takes ``*args`` or ``**kwargs``, or an argument has no annotation.
    """
    function = part.__init__
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise PartDefinitionError(f"{origin(part)}: an annotation cannot be read: {error}") from error
    docs = setting_docs(part)
    found = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if function is object.__init__:
            break
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PartDefinitionError(
                f"{origin(part)}: *{name} in the constructor hides settings; name each one with a type"
            )
        if name in part.supplied:
            continue
        if name not in hints:
            raise PartDefinitionError(f"{origin(part)}: setting {name!r} has no type annotation")
        kind, many, optional = _part_of(hints[name])
        found[name] = Setting(name, hints[name], parameter.default, docs.get(name, ""), kind, many, optional)
    return found


def wanted(part: type[Part]) -> tuple[str, ...]:
    """Names that the workbench supplies and this constructor asks for."""
    if part.__init__ is object.__init__:
        return ()
    return tuple(name for name in inspect.signature(part.__init__).parameters if name in part.supplied)


def setting_docs(part: type[Part]) -> dict[str, str]:
    """What the docstring's ``Settings:`` section says of each setting."""
    doc = inspect.getdoc(part) or ""
    section = re.search(r"^Settings:\n((?:[ \t]+.*\n?|\n)+)", doc, flags=re.M)
    if section is None:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section.group(1)).splitlines():
        head = re.match(r"(\w+):\s*(.*)", line)
        if head and not line.startswith(" "):
            name = head.group(1)
            found[name] = head.group(2)
        elif name:
            found[name] += " " + line.strip()
    return found


def origin(part: type[Any]) -> str:
    """Where a part is defined: ``path/to/file.py:line`` (the module's name where no source is at hand)."""
    try:
        return f"{inspect.getsourcefile(part)}:{inspect.getsourcelines(part)[1]}"
    except (OSError, TypeError):
        return f"{part.__module__}.{part.__qualname__}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Text to append to an error: the nearest known name, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."


def _part_of(annotation: Any) -> tuple[type[Part] | None, bool, bool]:
    """(kind's class, is a list, may be None) of an annotation; (None, …) for plain values."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        optional = len(arms) < len(typing.get_args(annotation))
        inner = _part_of(arms[0]) if len(arms) == 1 else (None, False, False)
        return inner[0], inner[1], optional
    if typing.get_origin(annotation) in (list, tuple):
        arguments = typing.get_args(annotation)
        inner = _part_of(arguments[0]) if arguments else (None, False, False)
        return inner[0], inner[0] is not None, False
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation, False, False
    return None, False, False
