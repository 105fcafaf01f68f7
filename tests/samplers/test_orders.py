"""Orders: what they choose, at what pace, and the exact law of walks that follow them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas, Choice, Law, Order
from samplers.draw import draw, drive
from samplers.enumeration import law_of, subsets
from samplers.exact import ExactView, IidView, zipf
from samplers.orders.planned import Blocks, PathPlanning
from samplers.orders.ranks import Confidence, Entropy, EntropyBounded, Margin, Random
from samplers.predictors.ordered import Ordered
from samplers.reverse import Reverse, start
from samplers.times import Uniform
from tests import oracle
from tests.samplers.toys import chi_square, law_and_view, on_tokens, reverse
from workbench.core.rng import Rng

ORDERS = {
    "random": Random(), "confidence": Confidence(), "noisy": Confidence(0.5), "margin": Margin(), "entropy": Entropy(),
    "bounded": EntropyBounded(0.2), "p2": PathPlanning(), "greedy": PathPlanning(0.0),
    "blocks": Blocks(Confidence(), 2), "bounded blocks": Blocks(EntropyBounded(0.5), 2),
}  # fmt: skip


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_draw_chooses_as_the_enumeration_says(tau: float, count: int) -> None:
    """Gumbel-top-k against Plackett–Luce, χ²-like, ties and an excluded row among four."""
    score_K = torch.tensor([0.3, 0.3, -torch.inf, -0.5], dtype=torch.float64)
    view = IidView(Absorbing(3), LogLinear(), zipf(3), length=4)
    state = start(view, Canvas.blank(4000, 4), torch.full((4000, 4), 3))
    choice = Choice(score_K.repeat(4000), torch.full((4000,), count), tau)
    ones_R = torch.ones(16_000, dtype=torch.float64)
    law = Law(torch.arange(16_000), ones_R, lambda s: torch.zeros(len(s), 3), choice=choice)
    moved_BL = draw(state, law, Rng(count), view.graph, 4000).state.x_BL != 3
    for chosen, p in subsets(score_K, count, tau).items():
        due = torch.tensor([at in chosen for at in range(4)])
        share = float((moved_BL == due).all(-1).double().mean())
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 4000) + 1e-9, (chosen, share, p)


@pytest.mark.parametrize("rule", [Random(), EntropyBounded(0.0)], ids=["random", "bounded"])
def test_one_position_at_a_time_is_exact(rule: Order) -> None:
    """In a random order, and in any order that the law so far decides, one token a step is drawn from its own law."""
    for length, steps in ((1, 1), (2, 2), (3, 3)):
        p0, view = law_and_view("absorbing", length)
        law = on_tokens(law_of(reverse(Ordered(rule), steps), view), view.vocab)
        assert oracle.total_variation(law, p0) < 1e-12


@pytest.mark.parametrize("name", list(ORDERS))
def test_draws_fit_the_enumerated_law(name: str) -> None:
    p0 = oracle.random_joint(2, 3, seed=3)
    view = ExactView(Absorbing(2), LogLinear(1e-9), torch.from_numpy(p0))
    sampler = Reverse(Ordered(ORDERS[name]), Uniform(1e-6), 2)
    law = on_tokens(law_of(sampler, view), 2)
    assert chi_square(sampler.draw(view, Canvas.blank(4000, 3), Rng(2)).tokens_BL, law) > 1e-3


def test_the_pace_is_exact() -> None:
    """After each step exactly the grid's share is masked; given positions count for nothing."""
    view = IidView(Absorbing(20), LogLinear(1e-9), zipf(20), length=12)
    canvas = Canvas.blank(5, 12)
    canvas.fixed_BL[1, :4] = True
    for order in (Random(), Confidence(), Margin(), Entropy(), PathPlanning(), Blocks(Random(), 4)):
        sampler = Reverse(Ordered(order), Uniform(1e-9), 4)
        left: list[list[int]] = []
        begun = sampler.begin(view, canvas, Rng(1))
        walk = sampler.walk(view, begun)
        drive(walk, Rng(1), view, lambda s, law, n, left=left: left.append(s.live_BL.sum(-1).tolist()))
        ends = left[:-1][sampler.predictor.stages - 1 :: sampler.predictor.stages]
        assert [row[0] for row in ends] == [9, 6, 3, 0] and [row[1] for row in ends] == [6, 4, 2, 0], order


def test_orders_pick_what_they_say() -> None:
    """Three positions with known laws: the surest, the widest lead, the lowest entropy."""
    laws = torch.tensor([[0.5, 0.49, 0.005, 0.005], [0.45, 0.2, 0.2, 0.15], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    joint = torch.einsum("i,j,k->ijk", *laws)
    view = ExactView(Absorbing(4), LogLinear(1e-9), joint)
    for order, at in ((Confidence(), 0), (Margin(), 1), (Entropy(), 0)):
        sampler = Reverse(Ordered(order), Uniform(0.6), 1, cleanup=False)
        after = sampler.draw(view, Canvas.blank(20, 3), Rng(0)).tokens_BL
        assert (after != 4).sum(-1).tolist() == [1] * 20
        assert bool((after[:, at] != 4).all())


def test_gamma_bounds_how_many() -> None:
    """Iid positions of entropy H: the head of k positions neglects (k − 1) H."""
    p_V = torch.tensor([0.5, 0.25, 0.25])
    view = IidView(Absorbing(3), LogLinear(), p_V, length=6)
    nats = float(-(p_V * p_V.log()).sum())
    for gamma, calls in ((0.0, 6), (1.01 * nats, 3), (2.01 * nats, 2), (99.0, 1)):
        sampler = Reverse(Ordered(EntropyBounded(gamma)), Uniform(), 5)
        assert sampler.draw(view, Canvas.blank(2, 6), Rng(0)).calls == calls


def test_blocks_go_left_to_right() -> None:
    view = IidView(Absorbing(9), LogLinear(1e-9), zipf(9), length=6)
    for order in (Blocks(Random(), 2), Blocks(EntropyBounded(0.0), 3)):
        sampler = Reverse(Ordered(order), Uniform(1e-9), 6)
        seen: list[torch.Tensor] = []
        begun = sampler.begin(view, Canvas.blank(7, 6), Rng(1))
        drive(sampler.walk(view, begun), Rng(1), view, lambda s, law, n, seen=seen: seen.append(s.live_BL))
        for live_BL in seen:
            blocks = live_BL.view(7, -1, order.size)
            begun_BK, done_BK = (~blocks).any(-1), (~blocks).all(-1)
            assert bool((~begun_BK[:, 1:] | done_BK[:, :-1]).all())


def test_path_planning_takes_back_and_asks_once_a_step() -> None:
    _, view = law_and_view("absorbing", 3)
    walks = [reverse(Ordered(PathPlanning(eta)), 3) for eta in (0.0, 4.0)]
    keeps, takes = (walk.draw(view, Canvas.blank(500, 3), Rng(5)) for walk in walks)
    assert keeps.calls == takes.calls == 3
    assert sum(takes.trace["moved"]) >= sum(keeps.trace["moved"]) > 0
    assert not torch.equal(keeps.tokens_BL, takes.tokens_BL)


@pytest.mark.parametrize("name", list(ORDERS))
def test_a_text_does_not_hear_its_batch_and_given_tokens_stay(name: str) -> None:
    _, view = law_and_view("absorbing", 3)
    canvas = Canvas.blank(30, 3)
    canvas.fixed_BL[::3, 1], canvas.x_BL[::3, 1] = True, 2
    sampler = reverse(Ordered(ORDERS[name]), 3)
    whole = sampler.draw(view, canvas, Rng(3)).tokens_BL
    part = Canvas(canvas.x_BL[7:12], canvas.fixed_BL[7:12], canvas.seq_B[7:12])
    view.chunk = 2
    assert torch.equal(sampler.draw(view, part, Rng(3)).tokens_BL, whole[7:12])
    assert bool((whole[::3, 1] == 2).all()) and int(whole.max()) < 4
