"""Arms that may not be compared are refused, with the numbers and the sizes that would match."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.grid.files import SMOKE, written
from workbench.core.errors import WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.fairness import costed, require_fair, unfair


def test_equal_arms_are_fair(tmp_path):
    fair = {"parameters": 0.01, "flops": 0.01, "tokens": "equal"}
    planned = plan(written(tmp_path, axes={"seed": [0, 1]}, fair=fair))
    assert unfair(planned, costed(planned.cells)) == []


def test_a_wider_arm_is_refused_with_sizes_that_match(tmp_path):
    axes = {"width": {"plain": {}, "wide": {"backbone.dim": 64}}}
    planned = plan(written(tmp_path, axes=axes, fair={"parameters": 0.1}))
    with pytest.raises(WorkbenchError) as caught:
        require_fair(planned, costed(planned.cells))
    message = str(caught.value)
    assert "plain has" in message and "fair.parameters" in message
    dim, depth = re.search(r"plain would match with {backbone.dim: (\d+), backbone.depth: (\d+)}", message).groups()
    axes["width"]["plain"] = {"backbone.dim": int(dim), "backbone.depth": int(depth)}
    mended = plan(written(tmp_path, axes=axes, fair={"parameters": 0.1}))
    require_fair(mended, costed(mended.cells))


def test_unequal_tokens_are_refused(tmp_path):
    planned = plan(written(tmp_path, axes={"train.steps": [5, 10]}, fair={"tokens": "equal"}))
    with pytest.raises(WorkbenchError, match=r"tokens trained on: 5 has 1,280, 10 2,560, 100\.0% more"):
        require_fair(planned, costed(planned.cells))


def test_each_training_is_costed_once(tmp_path):
    axes = {"sampler.steps": [2, 4, 8], "seed": [0, 1]}
    assert [len(one.cells) for one in costed(plan(written(tmp_path, axes=axes)).cells)] == [3, 3]


def test_flops_are_those_of_training(tmp_path):
    """A network that looks first, half the time, takes 3.5 times its forward pass to train and not 3."""
    axes = {"looks": {"once": {}, "twice": {"extends": str(SMOKE / "self-conditioned.yaml")}}}
    planned = plan(written(tmp_path, axes=axes, fair={"flops": 0.1}))
    (told,) = unfair(planned, costed(planned.cells))
    assert "once takes 3 times its forward pass, one of twice 3.5 times" in told


def test_seconds_are_held_to_before_anything_is_trained(tmp_path):
    """The same command goes on after a kill, whatever training took: the page says it."""
    planned = plan(written(tmp_path, axes={"train.steps": [5, 10]}, fair={"seconds": 0.1}))
    fast, slow = (replace(one, seconds=seconds) for one, seconds in zip(costed(planned.cells), (5.0, 9.0), strict=True))
    assert "80.0% more" in unfair(planned, [fast, slow])[0]
    assert unfair(planned, [fast, replace(slow, trained=True)]) == []
