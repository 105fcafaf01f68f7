"""The file a finished evaluation leaves in its run folder: ``results.json``, versioned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.metrics.value import Value

SCHEMA = 1
"""Version of the layout of results.json."""


class ResultsError(WorkbenchError):
    """A results.json that cannot be read."""


@dataclass(frozen=True)
class Results:
    """What was measured on a run.

    ``recipe``: the recipe's content hash; ``name``: the recipe's name; ``run``: the run folder's name;
    ``process``: the process part's name; ``values``: in the order measured; ``samples``: texts drawn from the
    model; ``real``: held-out texts of the same length; ``provenance``: step, weights, device, seed, packages,
    date …
    """

    recipe: str
    name: str
    run: str
    process: str
    values: Sequence[Value]
    samples: Sequence[str] = ()
    real: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Value | None:
        """The first value called ``name``."""
        return next((value for value in self.values if value.name == name), None)

    def as_data(self) -> dict[str, Any]:
        """Plain data: dump it with ``allow_nan=False``."""
        return {
            "schema": SCHEMA,
            "recipe": self.recipe,
            "name": self.name,
            "run": self.run,
            "process": self.process,
            "values": [value.as_data() for value in self.values],
            "samples": list(self.samples),
            "real": list(self.real),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_data(cls, data: Any, source: str = "results.json") -> Results:
        """Inverse of `as_data`.

        Raises:
            ResultsError: another schema, or not such a file at all; names ``source``.
        """
        again = "evaluate the run again"
        if not isinstance(data, Mapping) or "schema" not in data:
            raise ResultsError(f"{source}: no results (a mapping with 'schema' is due); {again}")
        if data["schema"] != SCHEMA:
            theirs = f"{data['schema']!r:.40}"
            raise ResultsError(f"{source}: written by schema {theirs}, this version reads {SCHEMA}; {again}")
        try:
            return cls(
                **{key: str(data.get(key, "")) for key in ("recipe", "name", "run", "process")},
                values=[Value.from_data(value) for value in data["values"]],
                samples=_texts(data.get("samples", ())),
                real=_texts(data.get("real", ())),
                provenance=dict(data.get("provenance") or {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultsError(f"{source}: damaged ({type(error).__name__}: {error}); {again}") from error


def _texts(given: Iterable[Any]) -> list[str]:
    return [str(text) for text in given]
