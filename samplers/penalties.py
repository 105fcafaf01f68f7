"""Shapers that look at what is written: penalties on tokens that stand there already, and on repeated n-grams.

They count *settled* tokens (given or written for good: on masked graphs all but the masks; where no position is ever
settled, the given ones alone). GPT-2's sampler settles the tokens before the one it draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.base import ShapeContext, Shaper
from workbench.core.bounds import AtLeastOne, AtLeastTwo, Natural, NonNegative


@Shaper.register("frequency")
class Frequency(Shaper):
    """log p − ``strength`` · ln(1 + count of the token), normalised (logit shaping, SDM 2026).

    It moves unigram statistics directly: judge what it does by other figures (MAUVE, repeated n-grams).

    Settings:
        strength: nats per doubling, over ln 2; published: 1.5 to 8, beside a low temperature
        window: count within this many positions to either side; 0 counts the whole text
    """

    def __init__(self, strength: NonNegative = 1.0, window: Natural = 0) -> None:
        """Keep the settings."""
        self.strength, self.window = strength, window

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        count_RV = counts(log_p_RV, context, self.window)
        return torch.log_softmax(log_p_RV - self.strength * count_RV.log1p(), -1)


@Shaper.register("repetition")
class Repetition(Shaper):
    """Tokens that stand there already: log p times ``theta`` (Keskar et al. 2019, CTRL, on log-probabilities).

    CTRL divides positive logits and multiplies negative ones; a log-probability is never positive.

    Settings:
        theta: at least 1, which changes nothing; CTRL: 1.2
        window: look within this many positions to either side; 0 looks at the whole text
    """

    def __init__(self, theta: AtLeastOne = 1.2, window: Natural = 0) -> None:
        """Keep the settings."""
        self.theta, self.window = theta, window

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        seen_RV = counts(log_p_RV, context, self.window) > 0
        return torch.log_softmax(torch.where(seen_RV, log_p_RV * self.theta, log_p_RV), -1)


@Shaper.register("no_repeat_ngram")
class NoRepeatNgram(Shaper):
    """A token that would make a second copy of ``n`` neighbouring settled tokens is excluded (Paulus et al. 2018).

    At every place that the token can take in the n-gram, since neighbours may be written on both sides; a law of which
    nothing would be left stays as it is. Positions written in the same step do not see one another.

    Settings:
        n: length of the n-grams that may stand only once
    """

    def __init__(self, n: AtLeastTwo = 4) -> None:
        """Keep the length."""
        self.n = n

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        x_BL, (rows, vocab) = context.x_BL, log_p_RV.shape
        length = x_BL.shape[1]
        if context.settled_BL is None or length < self.n:
            return log_p_RV
        settled_BL = context.settled_BL.to(x_BL.device, non_blocking=True) & (x_BL < vocab)
        item_R, at_R = context.rows_R // length, context.rows_R % length
        grams_BWN, there_BWN = x_BL.unfold(1, self.n, 1), settled_BL.unfold(1, self.n, 1)
        whole_BW = there_BWN.all(-1)
        banned_RV = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=x_BL.device)
        for place in range(self.n):
            first_R = at_R - place  # the n-gram that would hold this position at ``place``
            inside_R = (first_R >= 0) & (first_R + self.n <= length)
            first_R = first_R.clamp(0, length - self.n)
            at_place_N = torch.arange(self.n, device=x_BL.device) == place  # its own token is not compared
            own_RN, own_there_R = grams_BWN[item_R, first_R], (there_BWN[item_R, first_R] | at_place_N).all(-1)
            same_RWN = (grams_BWN[item_R] == own_RN.unsqueeze(1)) | at_place_N
            same_RW = same_RWN.all(-1) & whole_BW[item_R] & (inside_R & own_there_R).unsqueeze(-1)
            token_RW = torch.where(same_RW, grams_BWN[item_R][:, :, place], vocab)
            banned_RV.scatter_(1, token_RW, True)
        cut_RV = log_p_RV.masked_fill(banned_RV[:, :vocab], -torch.inf)
        nothing_R1 = cut_RV.isneginf().all(-1, keepdim=True)
        return torch.log_softmax(torch.where(nothing_R1, log_p_RV, cut_RV), -1)


def counts(log_p_RV: Tensor, context: ShapeContext, window: int) -> Tensor:
    """How often each token is settled in a row's text, other than at the row itself, [R, V] in the law's type.

    ``window``: within so many positions to either side; 0 is everywhere.
    """
    x_BL, vocab = context.x_BL, log_p_RV.shape[-1]
    out_RV = torch.zeros_like(log_p_RV)
    if context.settled_BL is None:
        return out_RV
    length = x_BL.shape[1]
    item_R, at_R1 = context.rows_R // length, (context.rows_R % length).unsqueeze(-1)
    x_RL = x_BL[item_R]
    apart_RL = (torch.arange(length, device=x_BL.device) - at_R1).abs()
    counted_RL = context.settled_BL.to(x_BL.device, non_blocking=True)[item_R] & (x_RL < vocab) & (apart_RL > 0)
    if window:
        counted_RL &= apart_RL <= window
    return out_RV.scatter_add_(1, x_RL.clamp_max(vocab - 1), counted_RL.to(out_RV.dtype))
