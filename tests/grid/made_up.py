"""Arms of a grid with figures made up."""

from __future__ import annotations

from pathlib import Path

from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.report.arms import Arm
from workbench.report.collect import Run


def run(label, **figures):
    values = [value if isinstance(value, Value) else Value(name, value) for name, value in figures.items()]
    return Run(Path(label), label, label, "0" * 16, "trained", results=Results("0" * 16, label, label, "x", values))


def arm(label, repeats, baseline=False, **labels):
    return Arm(label, labels, baseline, {(str(i),): one for i, one in enumerate(repeats)})
