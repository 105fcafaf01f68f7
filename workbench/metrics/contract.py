"""What every metric and every strategy must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from workbench.core.checks import run_checks
from workbench.metrics.base import Cost, Drawn, Evidence, HeldOut, Metric, Texts, needed
from workbench.metrics.solving import Attempts, Strategy
from workbench.metrics.value import Value

ENTRIES = frozenset({"bound", "samples", "real", "unigram", "known_words", "cost", "attempts"})
"""The entries of `Evidence`."""


def example_evidence(only: frozenset[str] = ENTRIES) -> Evidence:
    """Small, made-up evidence with the entries of ``only``."""
    rng = np.random.default_rng(0)
    held = rng.integers(0, 50, (20, 16))
    texts = [" the people of the states "] * 8
    entries = {
        "bound": HeldOut(rng.gamma(20, 2, (20, 3)), np.full(20, 40), held, "upper"),
        "samples": Drawn(
            rng.integers(0, 50, (8, 16)),
            texts,
            seconds=2.0,
            calls=32,
            batch=8,
            sampler="reverse",
            device="cpu",
        ),
        "real": Texts(rng.integers(0, 50, (8, 16)), texts),
        "unigram": np.bincount(held.ravel(), minlength=50),
        "known_words": frozenset({"the", "people"}),
        "attempts": Attempts(
            rng.random((12, 16, 2)).cumsum(-1) > 0.8,
            np.ones((12, 16, 2)).cumsum(-1) * 4,
            rng.integers(0, 4, (12, 16)),
            np.array([2.0, 3.0]),
        ),
        "cost": Cost([100.0, 110.0, 120.0], 60.0, 6600, 1000, 800, "cpu"),
    }
    return Evidence(**{name: entry for name, entry in entries.items() if name in only})  # type: ignore[arg-type]


def check_metric(part: type[Metric]) -> list[str]:
    """Problems of a metric, in words."""
    try:
        metric = part(**part.example())
    except Exception as error:
        return [f"cannot be built from its example settings: {type(error).__name__}: {error}"]
    problems = [f"needs {name!r}, which evidence does not hold" for name in sorted(metric.needs - ENTRIES)]
    try:
        values = metric(example_evidence(needed([metric])))
        again = metric(example_evidence(needed([metric])))
    except Exception as error:
        return [*problems, f"raises on evidence with what it needs: {type(error).__name__}: {error}"]
    if [value.name for value in values] != list(metric.columns()):
        problems.append(f"gives {[value.name for value in values]}, declares {list(metric.columns())}")
    if values != again:
        problems.append("values differ between two calls on the same evidence")
    return problems + [f"{value.name}: {problem}" for value in values for problem in _value(value)]


def _value(value: Value) -> Iterator[str]:
    if (value.value is None) == (not value.error):
        yield "either a value or an error is due"
    if (value.low is None) != (value.high is None):
        yield "an interval has two ends"
    if value.value is not None and value.low is not None and value.high is not None:
        if not value.low <= value.value <= value.high:
            yield f"{value.value:g} lies outside its interval {value.low:g} … {value.high:g}"
        if not value.method:
            yield "an interval with no method"
    if Value.from_data(json.loads(json.dumps(value.as_data(), allow_nan=False))) != value:
        yield "does not survive JSON"


def check_strategy(part: type[Strategy]) -> list[str]:
    """Problems of a strategy, in words."""
    return run_checks(Strategy, part, (_frees,))


def _frees(strategy: Strategy) -> Iterator[str]:
    """What is broken, nothing that is given, the same each time; all of the rest where a prefix sampler may have it."""
    lots = np.random.default_rng(0)
    given_NL = lots.random((50, 12)) < 0.5
    broken_NL = ~given_NL & (lots.random((50, 12)) < 0.3)
    u_NL = lots.random((50, 12))
    free_NL = strategy.free(given_NL, broken_NL, u_NL)
    if free_NL.shape != given_NL.shape or free_NL.dtype != bool:
        yield f"{free_NL.dtype} {free_NL.shape}, not a bool for each position"
        return
    if (free_NL & given_NL).any():
        yield "frees a given position"
    if (broken_NL & ~free_NL).any():
        yield "keeps a broken position"
    if not np.array_equal(free_NL, strategy.free(given_NL, broken_NL, u_NL)):
        yield "frees others when asked again"
    if not strategy.anywhere and not np.array_equal(free_NL, ~given_NL):
        yield "keeps positions between others, and does not declare `anywhere`"


CHECKS: dict[str, Callable[..., list[str]]] = {"metric": check_metric, "strategy": check_strategy}
"""Kind → contract check."""
