"""Conversion of plain values, driven by the annotation."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Literal

import pytest

from workbench.core.bounds import Count, Fraction, Natural, Positive, Probability
from workbench.core.values import convert, describe, insane, plain, shown


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (float, "1e-4", 1e-4),
        (Positive, "1e-4", 1e-4),
        (float, 1, 1.0),
        (int, "12", 12),
        (int, 3.0, 3),
        (Count, "1e4", 10_000),
        (Count, "50_257", 50_257),
        (list[int], ["1e2", 3], [100, 3]),
        (dict[str, float], {"a": "1e-1"}, {"a": 0.1}),
        (bool, "true", True),
        (bool, "on", True),
        (str, "1e-4", "1e-4"),
        (str | float, "1e-4", "1e-4"),
        (int | None, None, None),
        (Literal["a", 2], 2, 2),
        (Colour, "red", Colour.RED),
        (Path, "a/b", Path("a/b")),
        (tuple[float, ...], [1, "2"], (1.0, 2.0)),
        (Any, {"x": [1]}, {"x": [1]}),
    ],
)
def test_conversions(annotation, value, result):
    made, faults = convert(annotation, value)
    assert faults == []
    assert made == result
    assert type(made) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "path", "message"),
    [
        (int, 3.7, "", "needs an integer; found 3.7"),
        (int, True, "", "needs an integer; found true or false"),
        (float, False, "", "needs a number; found true or false"),
        (int | None, True, "", "found true or false"),
        (list[float], [1, [True]], "[1]", "needs a number; found [True]"),
        (dict[str, int], {"a": 1, "b": "x"}, "b", "needs an integer; found 'x'"),
        (dict[str, list[int]], {"b": [1, "x"]}, "b[1]", "needs an integer; found 'x'"),
        (Literal["left", "right"], "lfet", "", "needs one of 'left', 'right'; found 'lfet'. Did you mean 'left'?"),
        (Literal["a"] | None, "b", "", "needs one of 'a' or null; found 'b'"),
        (Colour, "rde", "", "needs one of 'red', 'blue'; found 'rde'. Did you mean 'red'?"),
        (float, float("inf"), "", "needs a number; found inf (finite)"),
        (float, "nan", "", "needs a number; found 'nan'"),
        (Fraction, 1.5, "", "needs a number in [0, 1]; found 1.5"),
        (int | list[int], {"a": 1}, "", "needs an integer or a list (each an integer); found a map"),
        (str, 7, "", "needs text; found 7 (put it in quotes)"),
        (object(), 7, "", "cannot be set from a recipe"),
        (str, "x" * 99 + "\n" if False else 10**30, "", "needs text"),
    ],
)
def test_faults(annotation, value, path, message):
    made, faults = convert(annotation, value)
    assert made is None
    assert len(faults) == 1
    assert faults[0][0] == path
    assert message in faults[0][1]


def test_words():
    assert describe(Probability) == "a number in [0, 1)"
    assert describe(Natural | None) == "an integer ≥ 0 or null"
    assert describe(list[Literal["a"]]) == "a list (each one of 'a')"
    assert shown("x" * 100) == "'" + "x" * 56 + "…"


def test_plain_data():
    assert plain({"a": (1, Colour.RED), "b": Path("x"), "c": {2, 1}}) == {"a": [1, "red"], "b": "x", "c": [1, 2]}


def test_insane_data():
    ring: list = []
    ring.append(ring)
    assert insane({"a": [1, "x", None, True, 0.5]}) is None
    assert "nested deeper" in insane(ring)[1]
    assert insane({"a": [0, {1}]}) == ("a[1]", "is no plain data but set")
    assert insane({"a": 10**5000})[0] == "a"
    assert insane({"a": "\ud800"})[0] == "a"
    wide: list = [0] * 1000
    assert "more than" in insane([wide] * 1000)[1]
