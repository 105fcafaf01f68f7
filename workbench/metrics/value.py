"""What a metric gives: one figure with its interval, and the same figure of real text beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Value:
    """One figure: ``low`` … ``high`` is its 95 % interval, ``se`` its standard error, ``n`` the number of
    units.

    ``relation``: "≤" where the figure is an upper bound. ``real``: the same figure on held-out text.
    ``extra``: named numbers that belong to it. ``method`` and ``note`` say how and with what reserve.
    ``error``: why there is no value.
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
    extra: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

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
        known["extra"] = {str(key): float(number) for key, number in dict(known.get("extra") or {}).items()}
        return cls(**known)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _as_it_is(value: Any) -> Any:
    return value


_READ: Mapping[str, Callable[[Any], Any]] = {"str": str, "int": int, "float | None": _number}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
