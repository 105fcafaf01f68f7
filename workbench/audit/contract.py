"""What every target must satisfy: run on any registered part, a plug-in's included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.predictors.first_hitting import FirstHitting
from samplers.reverse import Reverse
from samplers.times import Uniform
from workbench.audit.base import Target, floor
from workbench.core.checks import run_checks
from workbench.core.rng import Rng

NEAR = 5.0
"""Standard deviations within which figures of an exact sampler's texts lie from exact texts' own."""


def check_target(part: type[Target]) -> list[str]:
    """Problems of a target, in words."""
    return run_checks(Target, part, (_draws_texts, _its_score_is_its_law))


def _draws_texts(target: Target) -> Iterator[str]:
    """Exact texts are tokens of its size, the canvas's given ones among them; figures come near their truths."""
    tokens_BL, canvas = target.exact(Rng(1), 0), target.canvas()
    if tokens_BL.shape != (target.texts, target.length) or canvas.x_BL.shape != tokens_BL.shape:
        yield f"exact texts and canvas must be [{target.texts}, {target.length}]"
        return
    if not bool(((tokens_BL >= 0) & (tokens_BL < target.vocab)).all()):
        yield "exact texts hold ids that are no tokens"
    if not torch.equal(tokens_BL[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL]):
        yield "exact texts do not hold what the canvas gives"
    found = floor(target, Rng(1))
    for name, truth in target.truths().items():
        mean, spread = found[name]
        if abs(mean - truth) > NEAR * spread + 1e-9:
            yield f"{name} of exact texts is {mean:.4g} ± {spread:.2g}, and said to be {truth:.4g}"


def _its_score_is_its_law(target: Target) -> Iterator[str]:
    """A sampler without error (first hitting), by the target's score, writes texts with the figures of exact ones."""
    view = target.view(Absorbing(target.vocab), LogLinear())
    tokens_BL = Reverse(FirstHitting(), Uniform(), 1).draw(view, target.canvas(), Rng(2)).tokens_BL
    got, due = target.figures(tokens_BL), floor(target, Rng(1))
    for name, (mean, spread) in due.items():
        if abs(got[name] - mean) > NEAR * spread + 1e-9:
            yield f"{name} is {got[name]:.4g} by the score, and {mean:.4g} ± {spread:.2g} by the law"


CHECKS: dict[str, Callable[[Any], list[str]]] = {"target": check_target}
"""Kind → the function that checks a part of it."""
