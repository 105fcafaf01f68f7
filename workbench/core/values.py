"""Plain values of settings: conversion and checks by pydantic, and words for what is allowed.

Conversion is pydantic's lax mode driven by the annotation, because YAML cannot know what is due: ``1e-4`` is
text to YAML and a number where a number is due. Two things are stricter than pydantic: true/false is never a
number, and NaN and infinity are no settings.
"""

from __future__ import annotations

import enum
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from workbench.core.part import did_you_mean

DEPTH = 64
"""How deep data may nest."""
SIZE = 100_000
"""How many values data may hold, aliases counted each time they are used."""
BITS = 63
"""How large an integer may be."""
WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}
Fault = tuple[str, str]
"""(path below the setting, message)."""


def convert(annotation: Any, value: Any) -> tuple[Any, list[Fault]]:
    """``value`` as the annotation wants it, and what is wrong with it (then the value is None)."""
    try:
        adapter = _adapter(annotation)
    except PydanticUserError:
        return None, [("", f"cannot be set from a recipe: {annotation!r} is no type of plain data")]
    for attempt in (value, _numbers(value)):
        try:
            result = adapter.validate_python(attempt)
        except ValidationError as error:
            if attempt is value:
                first = error
            continue
        except RecursionError:
            return None, [("", "is nested too deep")]
        slipped = list(_slipped(value, result))
        return (
            (None, [(at, f"needs {describe(annotation)}; found true or false") for at in slipped])
            if slipped
            else (result, [])
        )
    return None, [_fault(annotation, detail, value) for detail in _details(annotation, first)]


def describe(annotation: Any) -> str:
    """What a value must be, in words: ``an integer ≥ 1``, ``one of 'a', 'b'``, ``a list (each a number)``."""
    outer, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if outer is typing.Annotated:
        bounds = " and ".join(filter(None, (_bound(note) for note in arguments[1:])))
        return f"{describe(arguments[0])} {bounds}".strip()
    if outer is Literal:
        return _one_of(arguments)
    if outer in (Union, types.UnionType):
        return " or ".join(describe(arm) for arm in arguments)
    if outer in (list, tuple, Sequence, set, frozenset) and arguments:
        return f"a list (each {describe(arguments[0])})"
    if outer in (dict, Mapping):
        return f"a map (each {describe(arguments[1])})"
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return _one_of([member.value for member in annotation])
    if annotation in WORDS:
        return WORDS[annotation]
    return str(annotation.__name__) if inspect.isclass(annotation) else str(annotation)


def plain(value: Any) -> Any:
    """A converted value as data that YAML and JSON can hold."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def insane(data: Any) -> Fault | None:
    """What makes data unfit to look into: nesting, size, integers past all use, objects. Safe on cyclic
    data."""
    count = 0
    stack: list[tuple[Any, str, int]] = [(data, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        count += 1
        if depth > DEPTH:
            return "", f"is nested deeper than {DEPTH} levels"
        if count > SIZE:
            return "", f"holds more than {SIZE} values"
        if isinstance(value, Mapping):
            stack.extend((item, join(path, key), depth + 1) for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            stack.extend((item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
        elif isinstance(value, int) and value.bit_length() > BITS:
            return path, f"is an integer of more than {BITS} bits"
        elif not (value is None or isinstance(value, (bool, int, float, str))):
            return path, f"is no plain data but {type(value).__name__}"
        elif isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
            return path, "holds a lone surrogate, which is no text"
    return None


def shown(value: Any) -> str:
    """A short form of a value for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a map"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def join(path: str, name: Any) -> str:
    """A dotted path one step down; names that would not be told apart in it stand in quotes."""
    step = name if isinstance(name, str) and re.fullmatch(r"[^\s'\"]+", name) else shown(name)
    return f"{path}.{step}" if path else str(step)


@functools.cache
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        hash(annotation)
    except TypeError:  # an annotation that carries unhashable notes
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    return _cached_adapter(annotation)


def _numbers(value: Any) -> Any:
    """``value`` with texts like ``1e4`` read as numbers: a second try where an integer is due."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", value):
        return float(value)
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    return value


def _slipped(value: Any, result: Any, path: str = "") -> Iterator[str]:
    """Where true or false was taken for something else."""
    if isinstance(value, bool):
        if not isinstance(result, bool):
            yield path
    elif isinstance(value, (list, tuple)) and isinstance(result, (list, tuple)):
        for i, (inner, made) in enumerate(zip(value, result, strict=False)):
            yield from _slipped(inner, made, f"{path}[{i}]")
    elif isinstance(value, Mapping) and isinstance(result, Mapping):
        for key, inner in value.items():
            yield from _slipped(inner, result.get(key, inner), join(path, key))


def _details(annotation: Any, error: ValidationError) -> list[tuple[Any, ...]]:
    """Where below the setting pydantic found faults; an alternative of types is one fault as a whole."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        if len(arms) > 1:
            return [()]
    return [detail["loc"] for detail in error.errors(include_url=False, include_context=False)]


def _fault(annotation: Any, loc: tuple[Any, ...], value: Any) -> Fault:
    path = ""
    for step in loc:
        inner = _inner(annotation)
        if inner is None:
            break
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            break
        annotation = inner
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, step)
    remedy = ""
    choices = _choices(annotation)
    if choices and isinstance(value, str):
        near = did_you_mean(value, map(str, choices)).partition(" Known:")[0]
        remedy = f".{near}" if near else ""
    elif WORDS[str] in describe(annotation) and isinstance(value, (int, float)):
        remedy = " (put it in quotes)"
    elif isinstance(value, float) and not math.isfinite(value):
        remedy = " (finite)"
    return path.removeprefix("."), f"needs {describe(annotation)}; found {shown(value)}{remedy}"


def _inner(annotation: Any) -> Any:
    """The annotation of the items of a list or map, None for others."""
    outer, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if outer is typing.Annotated:
        return _inner(arguments[0])
    if outer in (Union, types.UnionType):
        arms = [arm for arm in arguments if arm is not type(None)]
        return _inner(arms[0]) if len(arms) == 1 else None
    if outer in (list, tuple, Sequence, set, frozenset) and arguments:
        return arguments[0]
    return arguments[1] if outer in (dict, Mapping) else None


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        return [choice for arm in typing.get_args(annotation) for choice in _choices(arm)]
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return [member.value for member in annotation]
    return []


def _one_of(values: Sequence[Any]) -> str:
    return "one of " + ", ".join(shown(value) for value in values)


def _bound(note: Any) -> str:
    """A bound of `annotated_types` in words; nothing for notes that are no bounds."""
    limits = {name: getattr(note, name, None) for name in ("ge", "gt", "le", "lt")}
    left = ("≥", "[", limits["ge"]) if limits["ge"] is not None else (">", "(", limits["gt"])
    right = ("≤", "]", limits["le"]) if limits["le"] is not None else ("<", ")", limits["lt"])
    if left[2] is not None and right[2] is not None:
        return f"in {left[1]}{left[2]}, {right[2]}{right[1]}"
    for sign, _, limit in (left, right):
        if limit is not None:
            return f"{sign} {limit}"
    pattern = getattr(note, "pattern", None)
    return f"matching {pattern}" if isinstance(pattern, str) else ""
