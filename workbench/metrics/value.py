"""What a metric gives: one figure with its interval, and the same figure of real text beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Better = Literal["lower", "higher", "neither"]


SHUFFLED, INDEPENDENT = "shuffled words", "independent tokens"
"""What a figure is also measured on, by the name of its row: held-out texts with the words of each in another order; as
many tokens drawn independently by the frequencies of held-out text."""
KEPT_UNITS = 2000
"""A value of more units keeps none of them: results stay files that one can read."""


@dataclass(frozen=True)
class Units:
    """What a figure is made of, unit by unit: figure = Σ weight · value / Σ weight (no weights: the plain mean).

    ``key`` names the units (a digest of the prompts, of the blocks): two figures with the same key and number of
    units are of the same units in the same order, and can be compared in pairs (`comparison.paired`). Numbers are
    kept to six digits.
    """

    key: str
    values: tuple[float, ...]
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, key: str, above_N: Floats, below_N: Floats | None = None) -> Units | None:
        """Units of Σ above / Σ below; None where they are too many to be kept, or one has nothing below."""
        if below_N is None:
            return None if len(above_N) > KEPT_UNITS else cls(key, _short(above_N))
        if len(above_N) > KEPT_UNITS or not np.all(below_N > 0):
            return None
        return cls(key, _short(above_N / below_N), _short(below_N))

    @classmethod
    def from_data(cls, data: Any) -> Units | None:
        """Inverse of plain data; None of None."""
        if data is None:
            return None
        numbers = [tuple(float(number) for number in data.get(name, ())) for name in ("values", "weights")]
        return cls(str(data["key"]), *numbers)


def _short(numbers_N: Floats) -> tuple[float, ...]:
    return tuple(float(f"{number:.6g}") for number in numbers_N.tolist())


@dataclass(frozen=True)
class Value:
    """One figure: ``low`` … ``high`` is its 95 % interval, ``se`` its standard error, ``n`` the number of
    units.

    ``relation``: "≤" where the figure is an upper bound. ``real``: the same figure on held-out text; ``calibration``:
    on what no model wrote, by name (`SHUFFLED`, `INDEPENDENT`): what the figure, or its judge, can tell apart.
    ``by``: who measured, where it is not the figure's own formula: the digest of a judge (weights, precision), the
    version of a package, the machine whose seconds they are; figures by others are not compared. ``extra``: named
    numbers that belong to it. ``method`` and ``note`` say how and with what reserve. ``error``: why there is no value.
    ``units``: what it is made of, for comparisons in pairs.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    better: Better = "neither"
    unit: str = ""
    n: int = 0
    method: str = ""
    note: str = ""
    relation: Literal["=", "≤", "≥"] = "="
    se: float | None = None
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None
    calibration: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    by: str = ""
    units: Units | None = None

    @property
    def number(self) -> float:
        """The value, of a figure that is known to have one."""
        assert self.value is not None, self.name
        return self.value

    @property
    def timed(self) -> bool:
        """Whether it is of the clock: seconds, or something a second."""
        return "s" in self.unit.replace("/", " ").split()

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON: no number that is not finite, no field at its default."""
        data = {key: _finite(value) for key, value in asdict(self).items()}
        usual = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in data.items() if k in ("name", "value") or (v != usual[k] and v not in ({}, None))}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Value:
        """Inverse of `as_data`; unknown keys (of a newer version) are left aside.

        Raises:
            TypeError, ValueError, KeyError: something else than such data.
        """
        known: dict[str, Any] = {"name": str(data["name"]), "value": None}
        for f in fields(cls):
            if f.name in data:
                known[f.name] = _READ.get(str(f.type), _as_it_is)(data[f.name])
        for name in ("extra", "calibration"):
            known[name] = {str(key): float(number) for key, number in dict(known.get(name) or {}).items()}
        if "shuffled" in known["extra"]:  # where it stood in results before there were rows of it
            known["calibration"].setdefault(SHUFFLED, known["extra"]["shuffled"])
        return cls(**known)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _as_it_is(value: Any) -> Any:
    return value


_READ: Mapping[str, Callable[[Any], Any]] = {
    "str": str, "int": int, "float | None": _number, "Units | None": Units.from_data,
}  # fmt: skip


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
