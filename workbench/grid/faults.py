"""What can be wrong in a grid's file beside its types: axes, patches, and the names that the rest of it uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.core.errors import Problem
from workbench.core.part import did_you_mean

PLAIN = (str, bool, int, type(None))


def faults(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of a grid's own settings; ``settings`` by name, ``report`` as a node."""
    axes: dict[str, Any] = settings["axes"]
    for axis, arms in axes.items():
        yield from _axis(axis, arms)
    for name in ("base", "baseline"):
        yield from _file(name, settings[name])
    for name in ("set", "skip", "only"):
        yield from _plain(name, settings[name])
    labels = {axis: [str(one) for one in arms] for axis, arms in axes.items() if isinstance(arms, (dict, list))}
    yield from _names(settings, axes, labels)
    yield from _zips(settings["zip"] or [], axes, labels)
    yield from _circles(settings["only"] or {})
    yield from _sweep(settings["sweep"] or {}, axes)
    yield from _report(settings["report"].settings, axes)


def wanted_labels(wanted: Any) -> list[str]:
    """Labels as ``skip`` and ``only`` name them: one, or a list; None names none."""
    if wanted is None:
        return []
    return [str(one) for one in wanted] if isinstance(wanted, list) else [str(wanted)]


def _axis(axis: str, arms: Any) -> Iterator[Problem]:
    if not isinstance(arms, (dict, list)) or not arms:
        yield Problem(f"axes.{axis}", "an axis is a map of patches by their labels, or a list of values; neither empty")
    elif isinstance(arms, list):
        if len({str(one) for one in arms}) < len(arms):
            yield Problem(f"axes.{axis}", "lists a value twice")
        yield from _plain(f"axes.{axis}", arms)
    else:
        if len({str(label) for label in arms}) < len(arms):
            yield Problem(f"axes.{axis}", "has two labels that read the same")
        for label, patch in arms.items():
            if not str(label).isprintable() or not str(label):
                yield Problem(f"axes.{axis}", f"the label {str(label)!r:.60} cannot be printed on one line")
            elif patch is not None and not isinstance(patch, dict):
                message = f"a patch is a map of settings, as in {{train.steps: 100}}; found {patch!r:.60}"
                yield Problem(f"axes.{axis}.{label}", message)
            elif patch is not None:
                yield from _plain(f"axes.{axis}.{label}", patch)
                yield from _file(f"axes.{axis}.{label}.extends", patch.get("extends"))


def _plain(path: str, data: Any) -> Iterator[Problem]:
    """Numbers that are none, and what is no plain data: a recipe's hash is of numbers and text."""
    if isinstance(data, float) and not math.isfinite(data):
        yield Problem(path, f"{data} is no number that a setting can have")
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _plain(f"{path}.{key}", value)
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _plain(f"{path}[{i}]", value)
    elif not isinstance(data, (*PLAIN, float)):
        yield Problem(path, f"a value is a number, a text, a list or a map; found {data!r:.60}")


def _file(path: str, name: Any) -> Iterator[Problem]:
    if isinstance(name, str) and not (name and name.isprintable()):
        yield Problem(path, f"{name!r:.60} is no file's name")
    elif name is not None and not isinstance(name, str):
        yield Problem(path, f"is the name of a file; found {name!r:.60}")


def _names(settings: Mapping[str, Any], axes: Mapping[str, Any], labels: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Axes and labels that ``zip``, ``skip`` and ``only`` name and the file does not have."""
    named: list[tuple[str, str, Any]] = [
        (f"zip[{i}]", axis, None) for i, group in enumerate(settings["zip"] or []) for axis in group
    ]
    named += [
        (f"skip[{i}]", axis, wanted) for i, one in enumerate(settings["skip"] or []) for axis, wanted in one.items()
    ]
    for axis, where in (settings["only"] or {}).items():
        named += [(f"only.{axis}", axis, None)]
        named += [(f"only.{axis}", other, wanted) for other, wanted in where.items()]
    for path, axis, wanted in named:
        if axis in axes and axis not in labels:
            continue  # told with the axis
        if axis not in axes:
            yield Problem(path, f"there is no axis {axis!r}.{did_you_mean(axis, axes)}")
            continue
        for label in wanted_labels(wanted):
            if label not in labels.get(axis, []):
                yield Problem(path, f"axis {axis!r} has no {label!r}.{did_you_mean(label, labels.get(axis, []))}")


def _zips(groups: Sequence[list[str]], axes: Mapping[str, Any], labels: Mapping[str, list[str]]) -> Iterator[Problem]:
    zipped = [axis for group in groups for axis in group]
    for axis in sorted({axis for axis in zipped if zipped.count(axis) > 1}):
        yield Problem("zip", f"axis {axis!r} stands in it twice: it can go along with one group")
    for i, group in enumerate(groups):
        sizes = {axis: len(axes[axis]) for axis in group if axis in labels}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
            yield Problem(f"zip[{i}]", f"axes that go together have as many arms; found {told}")


def _circles(only: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Axes that vary only where they themselves, by way of others, have some label: each circle once."""
    told: set[frozenset[str]] = set()

    def walk(chain: tuple[str, ...]) -> Iterator[Problem]:
        for other in only.get(chain[-1], {}):
            if other == chain[0] and frozenset(chain) not in told:
                told.add(frozenset(chain))
                yield Problem(f"only.{chain[0]}", f"goes round: {' → '.join([*chain, other])}")
            elif other not in chain:
                yield from walk((*chain, other))

    for axis in only:
        yield from walk((axis,))


def _sweep(sweep: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[Problem]:
    patched = {axis for axis, arms in axes.items() if isinstance(arms, list)}
    patches = [patch for arms in axes.values() if isinstance(arms, dict) for patch in arms.values()]
    patched |= {setting for patch in patches if isinstance(patch, dict) for setting in patch}
    for setting, wanted in sweep.items():
        path, factors = f"sweep.{setting}", isinstance(wanted, dict)
        values = wanted.get("times") if isinstance(wanted, dict) and set(wanted) == {"times"} else wanted
        if not isinstance(values, list) or not values:
            yield Problem(
                path, f"is a list of values, or {{times: [0.3, 1, 3]}} of the recipe's own; found {wanted!r:.60}"
            )
            continue
        yield from _plain(path, values)
        if len({str(one) for one in values}) < len(values):
            yield Problem(path, "lists a value twice")
        if factors and not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
            yield Problem(path, f"factors are numbers; found {values!r:.60}")
        if not factors and setting in patched:
            yield Problem(path, "is set by an axis, which values of a sweep would replace; sweep {times: factors}")


def _report(settings: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[Problem]:
    """Axes that the page is to be made along and that the file does not have. ``seed`` is there or not."""
    over = list(settings["over"])
    for axis in sorted({axis for axis in over if over.count(axis) > 1}):
        yield Problem("report.over", f"names axis {axis!r} twice")
    for axis in over:
        if axis not in axes and axis != "seed":
            yield Problem("report.over", f"there is no axis {axis!r}.{did_you_mean(axis, axes)}")
    for kind in ("frontiers", "scaling"):
        for i, one in enumerate(settings[kind] or []):
            along = one.settings["along"]
            path = f"report.{kind}[{i}].along"
            if along is not None and along not in axes:
                yield Problem(path, f"there is no axis {along!r}.{did_you_mean(along, axes)}")
            elif along in over:
                yield Problem(path, f"figures are averaged over axis {along!r}: no line goes along it")
