"""Bounded types for the settings of parts: the signature states the bound, resolving checks it."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Interval

Count = Annotated[int, Ge(1)]
"""An integer ≥ 1."""
AtLeastTwo = Annotated[int, Ge(2)]
"""An integer ≥ 2."""
Natural = Annotated[int, Ge(0)]
"""An integer ≥ 0."""
AtLeastOne = Annotated[float, Ge(1)]
"""A real number ≥ 1."""
Positive = Annotated[float, Gt(0)]
"""A real number > 0."""
NonNegative = Annotated[float, Ge(0)]
"""A real number ≥ 0."""
Fraction = Annotated[float, Interval(ge=0, le=1)]
"""A real number in [0, 1]."""
Open = Annotated[float, Interval(gt=0, lt=1)]
"""A real number strictly between 0 and 1."""
Probability = Annotated[float, Interval(ge=0, lt=1)]
"""A real number in [0, 1): a rate of dropout, of noise, of decay."""
