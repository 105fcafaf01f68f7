"""Downstream tasks: the share of items answered right."""

from __future__ import annotations

import numpy as np

from workbench.metrics.asking import Answered
from workbench.metrics.base import Evidence, Metric
from workbench.metrics.statistics import bootstrap_ratio
from workbench.metrics.value import Units, Value


@Metric.register("accuracy")
class Accuracy(Metric):
    """Share of a task's items answered right, by lm-evaluation-harness's own rule (``acc``), for each task.

    Named ``accuracy_<task>``. ``units`` hold every item (up to `value.KEPT_UNITS`): runs are compared item by item.
    LAMBADA's is of its last word, each of whose tokens must be the likeliest of one look.
    """

    better = "higher"
    needs = frozenset({"answers"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        """One value for each task."""
        return [self._value(name, one) for name, one in evidence.answers.items()]

    def _value(self, task: str, one: Answered) -> Value:
        right = np.asarray(one.right, dtype=np.float64)
        found = bootstrap_ratio(right)
        return Value(
            f"{self.type_name}_{task}", found.value, found.low, found.high, better="higher", n=found.n, se=found.se,
            method=f"{found.n} items; BCa bootstrap over items", note=one.how, units=Units.of(one.key, right),
        )  # fmt: skip
