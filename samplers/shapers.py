"""Changes of the law of the clean token given the rest; GPT-2's next-token law takes the same ones.

On masked graphs they change where a token lands and never the pace at which tokens appear; on other graphs
they act on the clean law before it meets the noise, never on the transition (where a nucleus would cut the
noise itself).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

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


@Shaper.register("min_p")
class MinP(Shaper):
    """Tokens at least ``p`` times as probable as the most probable one (Nguyen et al. 2024, "Turning up the heat").

    Settings:
        p: share of the largest probability; 1 keeps the most probable tokens alone
    """

    def __init__(self, p: Share = 0.05) -> None:
        """Keep the share."""
        self.p = p

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        edge_R1 = log_p_RV.amax(-1, keepdim=True) + math.log(self.p)
        return torch.log_softmax(log_p_RV.masked_fill(log_p_RV < edge_R1, -math.inf), -1)


@Shaper.register("annealed")
class Annealed(Shaper):
    """From one shaper to another over time: log p = (1 − w) · late + w · early, w = t^``power``, normalised.

    Between two temperatures that is the temperature whose inverse lies between theirs (logit shaping, SDM 2026, has T
    itself go as t^1.5). What either excludes is excluded while it has weight. t is 1 at the start, 0 at clean text;
    for a left-to-right sampler the share of the text still to be written; where no time is told, 0.

    Settings:
        early: the shaper at t = 1
        late: the shaper at t = 0
        power: above 1 the late one takes over sooner
    """

    usual: ClassVar[dict[str, Any]] = {
        "early": {"type": "temperature", "tau": 1.0},
        "late": {"type": "temperature", "tau": 0.8},
    }

    def __init__(self, early: Shaper, late: Shaper, power: Positive = 1.0) -> None:
        """Keep both."""
        self.early, self.late, self.power = early, late, power

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        late_RV = self.late(log_p_RV, context)
        if context.t_B is None:
            return late_RV
        early_RV = self.early(log_p_RV, context)
        w_B = context.t_B.clamp(0, 1).pow(self.power).to(log_p_RV.device, log_p_RV.dtype, non_blocking=True)
        w_R1 = w_B[context.rows_R // context.x_BL.shape[1]].unsqueeze(-1)
        # 0 · −∞ is no number: without weight a shaper excludes nothing
        late_RV, early_RV = (
            torch.where(share_R1 > 0, share_R1 * law_RV, 0.0)
            for share_R1, law_RV in ((1 - w_R1, late_RV), (w_R1, early_RV))
        )
        return torch.log_softmax(late_RV + early_RV, -1)


def _sorted(v_RV: Tensor) -> Tensor:
    """Each row rising. On the host numpy's sort takes a twentieth of torch's time at V = 50,257."""
    if v_RV.device.type == "cpu":
        return torch.from_numpy(np.sort(v_RV.numpy(), -1))
    return v_RV.sort(-1).values
