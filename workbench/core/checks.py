"""Running the contract checks of a kind: each check is a generator of problems, in words, of a part built small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from workbench.core.part import Part
from workbench.core.spec import build, misfits, resolve

Check = Callable[[Any], Iterator[str]]


def run_checks(
    kind: type[Part], part: type[Any], checks: Sequence[Check], supplied: Mapping[str, Any] | None = None
) -> list[str]:
    """All problems of a part, built anew for each check as a recipe would from its ``example()`` over its defaults.

    ``supplied``: what the workbench would. A check that raises is one problem, and the others still run.
    """
    node, problems = resolve(kind, {"type": part.type_name, **part.example()})
    problems += [] if problems or node is None else misfits(node)
    if problems or node is None:
        return [f"its example settings do not resolve: {'; '.join(map(str, problems))}"]
    found = []
    for check in checks:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            made = build(node, supplied)
        except Exception as error:
            return [f"cannot be built from its example settings: {error}"]
        try:
            found += [f"{name}: {problem}" for problem in check(made)]
        except Exception as error:
            found.append(f"{name}: raises {type(error).__name__}: {error}")
    return found
