"""The float32 race of published samplers: its closed form, and that only those who ask for it get it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas, Law
from samplers.draw import draw
from samplers.exact import IidView, zipf
from samplers.predictors.normalised import Normalised
from samplers.race import BITS, race, race_weights
from samplers.reverse import Reverse, start
from samplers.times import Uniform
from tests import oracle
from tests.samplers.toys import law_and_view, reverse
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng


def test_the_closed_form_is_the_race_at_few_bits() -> None:
    """Simulated with 10 bits, where truncation is large: who wins, and how often anyone does."""
    bits, leave, draws = 10, 0.02, 400_000
    p_V = zipf(30)
    generator = torch.Generator().manual_seed(1)
    u_RS = (torch.randint(0, 2**bits, (draws, 31), generator=generator).double() + 1) / 2**bits
    # the smallest exponential is that of the largest u below 1: −log(1 − 2^-b) ≈ 2^-b
    keys_RS = torch.cat([p_V * leave, torch.tensor([1 - leave], dtype=torch.float64)]) / -(u_RS - 2.0**-bits).log()
    share_S = torch.bincount(keys_RS.nan_to_num(0.0).argmax(-1), minlength=31).double() / draws
    weight_V = race_weights(p_V, leave, bits)
    exact_V = p_V * leave
    assert float((share_S[:30] - weight_V).abs().sum()) < 0.12 * float(weight_V.sum())
    assert float((share_S[:30] - exact_V).abs().sum()) > 3 * float((share_S[:30] - weight_V).abs().sum())


def test_the_closed_form_of_float32() -> None:
    """Zipf's law over 50,257 tokens at the first of T steps: entropy and rate fall; nothing is lost with 53 bits."""
    p_V = torch.from_numpy(oracle.zipf())
    for steps, entropy, rate in ((128, 7.03, 0.88), (512, 6.37, 0.77), (1024, 6.02, 0.71), (4096, 5.28, 0.58)):
        weight_V = race_weights(p_V, 1 / steps)
        cold_V = weight_V / weight_V.sum()
        assert oracle.entropy(cold_V.numpy()) == pytest.approx(entropy, abs=0.02)
        assert float(weight_V.sum()) * steps == pytest.approx(rate, abs=0.01)
        assert float(race_weights(p_V, 1 / steps, 53).sum()) * (steps - 1) == pytest.approx(1, abs=1e-6)


def test_the_race_is_drawn_only_where_asked_and_cools() -> None:
    """At 2,000 tokens and 300 steps rare tokens vanish from the race's samples, and not from ours."""
    assert BITS == 24
    p_V = zipf(2000)
    view = IidView(Absorbing(2000), LogLinear(), p_V, length=64)
    canvas = Canvas.blank(6, 64)
    ours, theirs = (
        Reverse(Normalised(), Uniform(), 40, precision=precision).draw(view, canvas, Rng(1)).tokens_BL
        for precision in ("float64", "float32_race")
    )
    assert bool((theirs < 2000).all()) and not torch.equal(ours, theirs)
    plain, asked = (reverse("normalised", 3, **more) for more in ({}, {"precision": "float32_race"}))
    _, small = law_and_view("absorbing", 2)
    tokens_BL = asked.draw(small, Canvas.blank(3000, 2), Rng(2)).tokens_BL
    share = torch.bincount(tokens_BL[:, 0], minlength=4).double() / 3000
    due = torch.bincount(plain.draw(small, Canvas.blank(3000, 2), Rng(3)).tokens_BL[:, 0], minlength=4).double() / 3000
    assert float((share - due).abs().sum()) < 0.08  # a few probable tokens: float32 is no harm
    part = asked.draw(small, Canvas.blank(5, 2, first=7), Rng(2)).tokens_BL
    assert torch.equal(part, tokens_BL[7:12])


def test_the_race_leaves_notes_and_nonsense_to_the_draw() -> None:
    """What is noted of drawn tokens is noted, and scores that are no numbers are said, not passed over."""
    graph, state = Absorbing(4), start(law_and_view("absorbing", 3)[1], Canvas.blank(2, 3), torch.full((2, 3), 4))
    rows_R, log_p_V = torch.arange(6), torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    law = Law(rows_R, torch.ones(6, dtype=torch.float64), lambda subset: log_p_V.expand(len(subset), 4), notes="psi")
    noted = race(state, law, Rng(3), graph, 8).state.memory["psi"]
    assert torch.equal(noted, draw(state, law, Rng(3), graph, 8).state.memory["psi"]) and bool((noted < 0).all())
    broken = replace(law, leave_R=torch.full((6,), torch.nan, dtype=torch.float64), notes="")
    with pytest.raises(WorkbenchError, match="not numbers"):
        race(state, broken, Rng(3), graph, 8)
