"""Changes of the law of the clean token given the rest; GPT-2's next-token law takes the same ones.

On masked graphs they change where a token lands and never the pace at which tokens appear; on other graphs
they act on the clean law before it meets the noise, never on the transition (where a nucleus would cut the
noise itself).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor

from samplers.base import Shape, ShapeContext, Shaper
from samplers.draw import land
from workbench.core.bounds import Count, Positive

Share = Annotated[float, Interval(gt=0, le=1)]
"""A share of a whole: in (0, 1]."""


def chain(shapers: Sequence[Shaper]) -> Shape | None:
    """All shapers, in order, as one; None where there are none."""
    if not shapers:
        return None

    def shape(log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        for shaper in shapers:
            log_p_RV = shaper(log_p_RV, context)
        return log_p_RV

    return shape


@Shaper.register("temperature")
class Temperature(Shaper):
    """p^(1/τ), normalised: below 1 colder (likely tokens gain), above 1 hotter.

    Settings:
        tau: the temperature; 1 changes nothing
    """

    def __init__(self, tau: Positive = 1.0) -> None:
        """Keep the temperature."""
        self.tau = tau

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        # the largest is brought to 0 first: at tiny τ every other entry may overflow to −inf, this one cannot
        return torch.log_softmax((log_p_RV - log_p_RV.amax(-1, keepdim=True)) / self.tau, -1)


@Shaper.register("nucleus")
class Nucleus(Shaper):
    """The most probable tokens that together hold at least ``p``; tokens tied at the edge stay.

    Holtzman et al. 2020, "The curious case of neural text degeneration".

    Settings:
        p: mass of the nucleus; 1 changes nothing
    """

    def __init__(self, p: Share = 0.9) -> None:
        """Keep the mass."""
        self.p = p

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class. The edge is the (1 − p)-quantile of the sorted law, found without indices."""
        rising_RV = _sorted(log_p_RV)
        level_R = torch.full(rising_RV.shape[:1], 1 - self.p, dtype=torch.float64, device=rising_RV.device)
        edge_R1 = rising_RV.gather(-1, land(rising_RV, level_R)[0].unsqueeze(-1))
        return torch.log_softmax(log_p_RV.masked_fill(log_p_RV < edge_R1, -math.inf), -1)


@Shaper.register("top_k")
class TopK(Shaper):
    """The ``k`` most probable tokens (Fan et al. 2018); tokens tied with the last of them stay.

    Settings:
        k: how many; more than the vocabulary changes nothing
    """

    def __init__(self, k: Count = 50) -> None:
        """Keep the number."""
        self.k = k

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        edge_R1 = log_p_RV.topk(min(self.k, log_p_RV.shape[-1]), -1).values[:, -1:]
        return torch.log_softmax(log_p_RV.masked_fill(log_p_RV < edge_R1, -math.inf), -1)


def _sorted(v_RV: Tensor) -> Tensor:
    """Each row rising. On the host numpy's sort takes a twentieth of torch's time at V = 50,257."""
    if v_RV.device.type == "cpu":
        return torch.from_numpy(np.sort(v_RV.numpy(), -1))
    return v_RV.sort(-1).values
