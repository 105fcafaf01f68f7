"""Kinds of parts and their registers: a part's typed constructor is its whole schema.

A *kind* is an abstract base class declared with ``kind=``; a *part* is a concrete class registered under a
name. A recipe names it by ``type:`` and gives its settings; what the workbench itself knows (``supplied``:
the vocabulary, the length …) is passed by name to constructors that ask for it and is no setting::

    class Graph(Part, kind="graph", supplied=("vocab",)): ...

    @Graph.register("absorbing")
    class Absorbing(Graph):
        def __init__(self, vocab: int, floor: Positive = 1e-3) -> None: ...

Defaults that are parts themselves stand in the class variable ``usual`` (setting → ``{"type": …}``): a part's
own ``usual`` fills its own settings, a *sibling's* ``usual`` goes first (a graph knows its usual noise).
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, Union

from workbench.core.errors import PartDefinitionError, Problem, UnknownPart

if TYPE_CHECKING:
    from workbench.core.spec import Node

P = TypeVar("P", bound="Part")
Many = Literal["", "list", "map"]
REQUIRED: Any = inspect.Parameter.empty
KINDS: dict[str, type[Part]] = {}
"""Every kind by name, in order of declaration."""


@dataclass(frozen=True)
class Setting:
    """One settable constructor argument of a part.

    ``part`` is the class asked for when the value is itself a part; ``many`` says whether it is one (""), a
    "list" or a "map" (by name) of them; ``optional`` when ``None`` is allowed; ``maker`` when the constructor
    takes a `Maker` in place of a built part.
    """

    name: str
    annotation: Any
    default: Any
    doc: str = ""
    part: type[Part] | None = None
    many: Many = ""
    optional: bool = False
    maker: bool = False

    @property
    def required(self) -> bool:
        """Whether the signature has no default."""
        return self.default is REQUIRED


class Part(ABC):  # noqa: B024 - what is abstract is up to each kind
    """Base of everything a recipe can name. Subclass a *kind*, not this."""

    kind: ClassVar[str] = ""
    type_name: ClassVar[str] = ""
    supplied: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[Mapping[str, Any]] = {}
    registered: ClassVar[dict[str, type[Part]]] = {}
    immaterial: ClassVar[frozenset[str]] = frozenset()
    """Settings that move neither weights nor figures (a device, a cadence of the log): no part of content hashes."""
    afterwards: ClassVar[frozenset[str]] = frozenset()
    """Settings that come after training (a sampler, what is measured): they move figures, not weights."""
    neutral: ClassVar[Mapping[str, Any]] = {}
    """Settings that came later, with the value at which a part is what it was without them: then they are no part of
    content hashes, and runs of before are found."""

    def __init_subclass__(cls, kind: str | None = None, supplied: tuple[str, ...] | None = None, **rest: Any) -> None:
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
    def known_as(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Resolved settings as content hashes take them: override where one names what lies elsewhere (a file, a run),
        which counts by its content. Never raises: what is not there counts by its name."""
        return settings

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
            settings(part)  # refuses *args and unannotated settings here, not in the middle of a run
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
    def example(cls) -> dict[str, Any]:
        """Small settings over the defaults, for the contract checks of its kind.

        Override where a setting has no default, or where the defaults are large.
        """
        return {}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Problems of this part beside the others of a resolved recipe: declared here, collected while
        resolving.

        ``node`` is this part's resolved node (``node.settings``, ``node.path``); ``root`` the whole recipe's.
        Override in the class that owns the relation and call ``super()``.
        """
        yield from ()


class Maker(Generic[P]):
    """Makes fresh parts of one resolved node, for owners that need several or that know what the part wants.

    A constructor that is annotated ``mixer: Maker[Mixer]`` gets one of these in place of a mixer::

        blocks = [mixer(dim=dim, length=length, causal=causal) for _ in range(depth)]
    """

    def __init__(self, part: type[P], make: Callable[[Mapping[str, Any]], P]) -> None:
        """``part``: the class that will be made; ``make``: from what the owner supplies to a part."""
        self.part = part
        self.make = make

    def __call__(self, **supplied: Any) -> P:
        """A new part. ``supplied``: values for the kind's supplied names that the owner knows."""
        return self.make(supplied)


class Section(Part):
    """A fixed group of settings in a recipe (``data:``, ``train:``): a schema without a ``type:``."""


def settings(part: type[Part]) -> dict[str, Setting]:
    """The settings of a part, read from its constructor: all arguments but ``self`` and those supplied.

    Raises:
        PartDefinitionError: the constructor takes ``*args`` or ``**kwargs``, or an argument has no
        annotation.
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
        if name == "type":
            raise PartDefinitionError(f"{origin(part)}: no setting can be called 'type': that names the part")
        shape = _shape(hints[name])
        if shape.part is None and _mentions_part(hints[name]):
            raise PartDefinitionError(
                f"{origin(part)}: setting {name!r}: a part stands alone, in a list or in a dict by name"
            )
        if parameter.default is not REQUIRED and not _is_plain(parameter.default):
            raise PartDefinitionError(
                f"{origin(part)}: the default of {name!r} is no plain data; default parts stand in `usual`"
            )
        found[name] = Setting(name, hints[name], parameter.default, docs.get(name, ""), *shape)
    return found


def wanted(part: type[Part]) -> tuple[str, ...]:
    """Names that the workbench supplies and this constructor asks for."""
    if part.__init__ is object.__init__:
        return ()
    return tuple(name for name in inspect.signature(part.__init__).parameters if name in part.supplied)


def setting_docs(part: type[Part]) -> dict[str, str]:
    """What the docstrings' ``Settings:`` sections say of each setting: the class's own, else those it inherits."""
    found: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        section = re.search(r"^Settings:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(cls.__doc__ or ""), flags=re.M)
        name = ""
        for line in inspect.cleandoc(section.group(1)).splitlines() if section else ():
            head = re.match(r"(\w+):\s*(.*)", line)
            if head and not line.startswith(" "):
                name = head.group(1)
                found[name] = head.group(2)
            elif name:
                found[name] += " " + line.strip()
    return found


def summary(part: type[Any]) -> str:
    """The first paragraph of a class's own docstring, on one line."""
    return " ".join(inspect.cleandoc(part.__doc__ or "").partition("\n\n")[0].split())


def origin(part: type[Any]) -> str:
    """Where a part is defined: ``path/to/file.py:line`` (the module's name where no source is at hand)."""
    try:
        return f"{inspect.getsourcefile(part)}:{inspect.getsourcelines(part)[1]}"
    except (OSError, TypeError):
        return f"{part.__module__}.{part.__qualname__}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Text to append to an error: the nearest known name, then all of them."""
    names = sorted(known)
    return nearest(name, names) + all_known(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """The first half of it, "" where none is near."""
    near = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def all_known(known: Iterable[str]) -> str:
    """The second."""
    return f" Known: {', '.join(sorted(known)) or 'none'}."


class _Shape(NamedTuple):
    """How an annotation asks for parts, in the order of `Setting`'s last fields."""

    part: type[Part] | None = None
    many: Many = ""
    optional: bool = False
    maker: bool = False


def _shape(annotation: Any) -> _Shape:
    """What parts an annotation asks for; ``part`` is None for plain values."""
    outer, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if outer in (Union, types.UnionType):
        arms = [arm for arm in arguments if arm is not type(None)]
        inner = _shape(arms[0]) if len(arms) == 1 else _Shape()
        return inner._replace(optional=len(arms) < len(arguments))
    if outer in (list, tuple, Sequence, dict, Mapping) and arguments:
        mapping = outer in (dict, Mapping)
        inner = _shape(arguments[1] if mapping else arguments[0])
        if inner.part is None or inner.many or inner.optional:
            return _Shape()
        return inner._replace(many="map" if mapping else "list")
    if outer is Maker:
        return _shape(arguments[0])._replace(maker=True)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return _Shape(annotation)
    return _Shape()


def _mentions_part(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return True
    return any(_mentions_part(argument) for argument in typing.get_args(annotation))


def _is_plain(value: Any) -> bool:
    """Whether a default is data that YAML can hold (tuples stand for lists)."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
