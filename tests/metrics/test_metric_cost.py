"""Costs: seconds keep the machine that they are of, counts do not."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.metrics.base import Cost, Drawn, Evidence
from workbench.metrics.cost import Latency, Parameters, SamplingSpeed, TrainingSpeed
from workbench.metrics.solved import Solved
from workbench.metrics.solving import Attempts
from workbench.metrics.timing import Timed
from workbench.metrics.value import Value

EVIDENCE = Evidence(
    cost=Cost([100.0, 110.0], 60.0, 6600, 1000, 800, "cpu", "the box that trained"),
    samples=Drawn(np.zeros((8, 16), np.int64), ["a"] * 8, seconds=2.0, calls=32, batch=8, machine="a box"),
    timings=[Timed(1, 16, [0.2, 0.21, 0.19], 16.0, machine="a box")],
    attempts=Attempts(
        np.ones((3, 2, 1), bool), np.ones((3, 2, 1)), np.zeros((3, 2), np.int64), np.ones(1), machine="a box"
    ),
)


@pytest.mark.parametrize("metric", [TrainingSpeed(), SamplingSpeed(), Latency(), Parameters(), Solved([1])])
def test_seconds_are_of_a_machine(metric):
    where = "the box that trained" if isinstance(metric, TrainingSpeed) else "a box"
    values = metric(EVIDENCE)
    assert {value.by for value in values if value.timed} <= {where}
    assert {value.by for value in values if not value.timed} <= {""}
    assert any(value.timed for value in values) is not isinstance(metric, Parameters)


def test_what_is_of_the_clock():
    units = {"s": True, "s a batch": True, "tokens/s": True, "tokens": False, "calls a sequence": False, "": False}
    assert {unit: Value("x", 1.0, unit=unit).timed for unit in units} == units


def test_results_of_before_name_no_machine_and_are_read():
    assert Value.from_data({"name": "latency_b1", "value": 1.0, "unit": "s a batch"}).by == ""
