"""Recipes as plain trees: ``extends``, merging, dotted overrides and a stable hash."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from workbench.core.reading import DEPTH, TreeError, is_yaml, read_yaml

__all__ = ["TreeError", "dump_yaml", "load_tree", "merge", "not_finite", "override", "read_yaml", "stable_hash"]

PARENTS = 20


def load_tree(path: Path | str) -> dict[str, Any]:
    """A recipe file with its ``extends`` chain merged, the key itself gone, ``plugins`` and ``start.recipe`` absolute.

    ``extends`` names one parent: a ``.yaml`` file, relative to the file that names it.

    Raises:
        TreeError: a file cannot be read, is no mapping, or the chain goes round.
    """
    return _load(Path(path), ())


def merge(parent: Any, child: Any) -> Any:
    """``child`` over ``parent``: maps merge, a different ``type`` replaces the node, lists replace.

    A part written as a bare name is ``{type: name}``. A part that the child sets to null stays, as null:
    resolving treats it as left out.
    """
    if isinstance(parent, str) and isinstance(child, Mapping) and "type" not in child and child:
        parent = {"type": parent}
    if isinstance(child, str) and isinstance(parent, Mapping) and "type" in parent:
        child = {"type": child}
    if not (isinstance(parent, Mapping) and isinstance(child, Mapping)):
        return _copy(child)
    if "type" in child and child["type"] != parent.get("type"):
        return _copy(child)
    merged = {key: _copy(value) for key, value in parent.items()}
    for key, value in child.items():
        merged[key] = merge(parent[key], value) if key in parent else _copy(value)
    return merged


def override(tree: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of ``tree`` with ``a.b=value`` and ``a.list[0].c=value`` set; values are read as YAML.

    Neighbouring assignments act together, as a child recipe would: ``backbone.type=gru backbone.hidden=64``
    makes a new backbone, while the same type keeps what stood there.

    Raises:
        TreeError: an assignment that is no ``path=value`` or names a list item that is not there.
    """
    result: Any = _copy(tree)
    child: dict[str, Any] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        steps = _steps(path.strip()) if equals else None
        if not steps:
            how = "write path=value, as in train.steps=100 or sampler.shapers[0].p=0.9"
            raise TreeError(f"override {text!r:.200}: {how}")
        data = read_yaml(value, f"override {path:.200}")
        if any(isinstance(step, int) for step in steps):
            result, child = merge(result, child), {}
            result = _set_item(result, steps, data, text)
        else:
            nested: Any = data
            for step in reversed(steps):
                nested = {step: nested}
            child = _lay(child, nested)
    return dict(merge(result, child))


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, in the order it has; `read_yaml` gives the same data back."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def stable_hash(data: Any) -> str:
    """16 hex digits that stand for plain data: the order of keys does not count, 1.0 is 1, tuples are
    lists."""
    text = json.dumps(_canonical(data), sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _load(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in below:
        chain = " → ".join(str(step.name) for step in (*below, here))
        raise TreeError(f"{below[-1]}: extends goes round: {chain}")
    if len(below) >= PARENTS:
        raise TreeError(f"{path}: extends goes through more than {PARENTS} files")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise TreeError(f"{path}: a recipe is a map of settings{' and this file is empty' if data is None else ''}")
    plugins = data.get("plugins")
    if isinstance(plugins, list):
        data["plugins"] = [_beside(path, entry) if isinstance(entry, str) else entry for entry in plugins]
    start = data.get("start")
    # where the run is known already (a run folder's own recipe) the file it was found by is a note, no reference
    if isinstance(start, dict) and isinstance(start.get("recipe"), str) and "run" not in start:
        data["start"] = start | {"recipe": _beside(path, start["recipe"])}
    if "extends" not in data:
        return data
    parent = data.pop("extends")
    if not isinstance(parent, str) or not is_yaml(parent) or Path(parent).is_absolute():
        raise TreeError(f"{path}: extends names one .yaml file, relative to this one; found {parent!r:.80}")
    target = path.parent / parent
    if not target.is_file():
        raise TreeError(f"{path}: extends {parent}, and there is no such file ({target})")
    return dict(merge(_load(target, (*below, here)), data))


def _beside(path: Path, entry: str) -> str:
    """A file that ``path`` names, relative to itself, as an absolute path."""
    if "\0" in entry:  # the system would not say which file it is
        raise TreeError(f"{path}: {entry!r:.80} is no name of a file")
    return str((path.parent / entry).resolve())


def not_finite(data: Any, path: str = "") -> str | None:
    """Where in plain data the first number stands that is NaN or infinite (a dotted path); None where none does."""
    inner = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, (list, tuple)) else ()
    found = (not_finite(value, f"{path}.{key}" if path else str(key)) for key, value in inner)
    wrong = isinstance(data, float) and not math.isfinite(data)
    return path if wrong else next((place for place in found if place is not None), None)


def _lay(child: Any, new: Any) -> Any:
    """Assignments together: later ones win, maps add up, and a type given first or last is the type of
    all."""
    if isinstance(child, Mapping) and isinstance(new, Mapping):
        laid = dict(child)
        for key, value in new.items():
            laid[key] = _lay(child[key], value) if key in child else value
        return laid
    if isinstance(child, str) and isinstance(new, Mapping) and "type" not in new:
        return {"type": child, **new}
    return new


def _steps(path: str) -> list[str | int] | None:
    if not re.fullmatch(r"[\w-]+(\[\d{1,6}\])*(\.[\w-]+(\[\d{1,6}\])*)*", path) or path.count(".") > DEPTH:
        return None
    return [int(index) if index else name for name, index in re.findall(r"([\w-]+)(?![\w\]-])|\[(\d+)\]", path)]


def _set_item(tree: Any, steps: list[str | int], value: Any, text: str) -> Any:
    if not steps:
        return merge(tree, value)
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if not isinstance(tree, list) or step >= len(tree):
            raise TreeError(f"override {text!r:.200}: there is no list item [{step}]")
        return [_set_item(item, rest, value, text) if i == step else item for i, item in enumerate(tree)]
    holder = {"type": tree} if isinstance(tree, str) else dict(tree) if isinstance(tree, Mapping) else {}
    holder[step] = _set_item(holder.get(step), rest, value, text)
    return holder


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
