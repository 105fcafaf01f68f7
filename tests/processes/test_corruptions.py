"""Ways to draw training noise: the same bound by exact enumeration, different draws of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from graphs.absorbing import Absorbing
from graphs.noise import Cosine, LogLinear
from graphs.uniform import Uniform
from tests import oracle
from tests.processes.tables import MASKS, X0, L, Table, V, by_count, cost, slack
from workbench.check import estimate
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.corruptions import Complementary, Corruption, EvenShare, ExactCount, Independent
from workbench.processes.denoising import DenoisingCrossEntropy
from workbench.processes.diffusion import Diffusion
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.readouts import Normalised, Scaled
from workbench.processes.time_draws import StratifiedTimes, TimeDraw, UniformTimes
from workbench.recipe import load


class Places(TimeDraw):
    """The times it is given, with the weights of a quadrature."""

    def __init__(self, eps: float, place_B, weight_B) -> None:
        self.eps, self.place_B, self.weight_B = eps, place_B, weight_B

    def draw(self, seq_B, step, rng):
        return self.eps + (1 - self.eps) * self.place_B, (1 - self.eps) * self.weight_B


class Numbers(Rng):
    """The uniform numbers it is given."""

    def __init__(self, u_L) -> None:
        super().__init__(0)
        self.u_L = np.array(u_L)

    def uniform(self, stream, step, seq_B, n):
        return np.tile(self.u_L, (len(seq_B), 1))


NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def by_share(low: float, high: float, of=cost) -> float:
    """∫ dλ/λ E of the cost over masks of share λ."""
    total = 0.0
    for share, w in zip(low + (high - low) * (NODES + 1) / 2, WEIGHTS / 2, strict=True):
        chance = [np.prod(np.where(mask, share, 1 - share)) for mask in MASKS]
        total += (high - low) * w / share * sum(p * of(mask) for p, mask in zip(chance, MASKS, strict=True))
    return total


def process(corruption: Corruption, times: TimeDraw, noise=None, score: bool = False) -> Diffusion:
    objective, readout = (ScoreEntropy(), Scaled(V)) if score else (DenoisingCrossEntropy(), Normalised())
    return Diffusion(V, L, Absorbing(V), noise or LogLinear(), readout, objective, times, corruption)


def nats(made: Diffusion, u_L) -> np.ndarray:
    """The training loss of each place by itself, [B], in nats of a block, where the numbers are ``u_L``."""
    times = made.times
    noised = made.prepare(np.tile(X0, (len(times.place_B), 1)), np.arange(len(times.place_B)), 0, Numbers(u_L))
    context = {"x": noised.x_R, "target": noised.target_R, "sigma": noised.sigma_R.double()}
    out_RS = Table()(noised.x_BL).reshape(-1, V + 1)[noised.rows_R]
    values_R = made.rows.values(out_RS, context)[0] * noised.weight_R
    return torch.zeros(len(noised.x_BL), dtype=torch.float64).index_add(0, noised.rows_R // L, values_R).numpy()


def expected(corruption: Corruption, eps: float, noise=None, score: bool = False) -> float:
    """E of the training loss: places by quadrature, masks by their probabilities at the drawn noise."""
    place_B = (NODES + 1) / 2
    made = process(corruption, Places(eps, place_B, np.full(len(place_B), 1.0)), noise, score)
    probe = corruption.draw(np.arange(len(place_B)), L, 0, Numbers([0.5] * L), made.noise, made.times)
    share_B = -np.expm1(-probe.sigma_N.numpy())
    total = 0.0
    for mask in MASKS:
        chance_B = np.prod(np.where(np.array(mask), share_B[:, None], 1 - share_B[:, None]), -1)
        total += float((WEIGHTS / 2 * chance_B * nats(made, np.where(mask, 0.0, 1 - 2.0**-53))).sum())
    return total


def test_the_three_cross_entropies_are_one_number():
    """t-DCE, λ-DCE and k-DCE of one network, by enumeration and with no code of the package."""
    by_noise = oracle.integrate(
        lambda sigma: sum(
            np.prod(np.where(mask, -np.expm1(-sigma), np.exp(-sigma))) * cost(mask) for mask in MASKS
        ) / np.expm1(sigma),
        1e-9, 40.0, panels=60,
    )  # fmt: skip
    assert by_noise == pytest.approx(by_share(0, 1), rel=1e-6)
    assert by_count() == pytest.approx(by_share(0, 1), rel=1e-12)


@pytest.mark.parametrize("score", [False, True], ids=["cross-entropy", "score entropy"])
@pytest.mark.parametrize("noise", [LogLinear(), Cosine()], ids=lambda noise: noise.type_name)
def test_times_and_shares_draw_the_bound_between_the_ends_of_the_schedule(noise, score):
    eps = 0.2
    low, high = (-torch.expm1(-noise.total(torch.tensor([eps, 1.0]).double()))).tolist()
    due = by_share(low, high) + score * by_share(low, high, slack)
    for corruption in (Independent(), EvenShare()):
        # a quadrature over t; the noise goes into the network's context in float32
        assert expected(corruption, eps, noise, score) == pytest.approx(due, rel=2e-5)


@pytest.mark.parametrize("score", [False, True], ids=["cross-entropy", "score entropy"])
def test_exact_counts_draw_the_whole_bound(score):
    place_B = (np.arange(L) + 0.5) / L
    made = process(ExactCount(), Places(0.01, place_B, np.ones(L)), score=score)
    orders = list(itertools.permutations([0.1, 0.4, 0.7]))
    drawn = [nats(made, order) for order in orders]
    due = by_count() + score * by_count(slack)
    assert np.mean(drawn) == pytest.approx(due, rel=1e-5)
    assert due == pytest.approx(by_share(0, 1) + score * by_share(0, 1, slack), rel=1e-12)


def test_exactly_k_masks_at_every_length():
    for length in (1, 2, 7, 64):
        noise, times = LogLinear(), StratifiedTimes()
        drawn = ExactCount().draw(np.arange(200), length, 3, Rng(0), noise, times)
        x0 = torch.zeros(200, length, dtype=torch.long)
        masks_N = (Absorbing(V).corrupt(x0, drawn.sigma_N[:, None], drawn.u_NL) == V).sum(-1)
        due_N = drawn.weight_N / torch.expm1(drawn.sigma_N)
        torch.testing.assert_close(length / masks_N.double(), due_N, rtol=1e-12, atol=0)
        assert set(masks_N.tolist()) == set(range(1, length + 1))


def test_complements_share_out_the_tokens_and_draw_the_same_bound():
    eps = 0.2
    place_B = (NODES + 1) / 2
    made = process(Complementary(), Places(eps, place_B, np.ones(12)))
    noised = made.prepare(np.tile(X0, (12, 1)), np.arange(12), 0, Numbers([0.9, 0.1, 0.5001]))
    masked = (noised.x_BL == V).reshape(12, 2, L)
    assert bool((masked.sum(1) == 1).all())
    assert noised.tokens == 2 * 12 * L
    edge = max(-np.expm1(-float(made.noise.total(torch.tensor(eps).double()))), 1e-3)
    total = 0.0
    for mask in MASKS:
        share_B = edge + (1 - 2 * edge) * place_B
        chance_B = np.prod(np.where(np.array(mask), share_B[:, None], 1 - share_B[:, None]), -1)
        pairs = nats(made, np.where(mask, 2.0**-40, 1 - 2.0**-40)).reshape(12, 2).mean(1)
        total += float((WEIGHTS / 2 * chance_B * pairs).sum())
    assert total == pytest.approx(by_share(edge, 1 - edge), rel=2e-5)


def test_fewer_things_left_to_chance_spread_less():
    """Spread of a loss of 64 sequences over steps: k-DCE < λ-DCE; complements < as many independent masks."""
    x0, seq = np.tile(X0, (64, 1)), np.arange(64)
    shell = Shell(Table())
    spread = {}
    for corruption in (Independent(), EvenShare(), ExactCount(), Complementary()):
        made = process(corruption, StratifiedTimes())
        steps = range(120)
        losses = [float(made.loss(shell, made.prepare(x0, seq, step, Rng(5))).nats.detach()) for step in steps]
        assert np.mean(losses) * L == pytest.approx(by_count(), rel=0.1)
        spread[corruption.type_name] = np.var(losses)
    assert spread["exact_count"] < 0.5 * spread["even_share"]
    assert spread["complementary"] < 0.5 * spread["even_share"]


def test_the_usual_draw_is_independent_and_draws_what_it_did():
    made = Diffusion(V, L, Uniform(V), LogLinear(), Normalised(), ScoreEntropy(), UniformTimes())
    x0, seq = np.tile(X0, (4, 1)), np.arange(4)
    t_B, weight_B = made.times.draw(seq, 2, Rng(1))
    due = made.noised(x0, t_B, weight_B, Rng(1).uniform("corrupt", 2, seq, L))
    found = made.prepare(x0, seq, 2, Rng(1))
    for name in ("x_BL", "sigma_B", "weight_R", "bucket_R"):
        assert torch.equal(getattr(due, name), getattr(found, name))


def test_counting_masks_needs_masks():
    with pytest.raises(WorkbenchError, match="corruption 'exact_count' needs a graph with a mask"):
        load("smoke/sedd.yaml", ["process={type: diffusion, graph: uniform, corruption: exact_count}"])
    load("smoke/sedd.yaml", ["process={type: diffusion, graph: absorbing, corruption: exact_count}"])


def test_the_estimate_knows_how_often_a_sequence_is_read():
    """Twice: as much memory of activations as twice the batch, the rest as it was."""
    corruption = "process={type: diffusion, graph: absorbing, corruption: %s}"
    once, twice = (load("smoke/sedd.yaml", [corruption % name]) for name in ("independent", "complementary"))
    big = load("smoke/sedd.yaml", [corruption % "independent", f"train.batch={2 * once.data['train']['batch']}"])
    assert (estimate(once).copies, estimate(twice).copies) == (1, 2)
    assert estimate(once).training_bytes < estimate(twice).training_bytes == estimate(big).training_bytes
    assert estimate(twice).tokens_per_step == estimate(once).tokens_per_step


def test_the_estimate_counts_looks_without_a_gradient():
    """Three forward passes a token for each copy read, one for each look of a teacher or of a first pass."""
    plain = load("smoke/sedd.yaml")
    forward = estimate(plain).flops_per_token
    assert estimate(plain).training_flops == 3 * forward
    heard = estimate(load("smoke/self-conditioned.yaml", ["process.share=0.5"]))
    assert heard.training_flops == pytest.approx(3.5 * heard.flops_per_token)
    leaps = {"process.leaps=2": 2, "process.leaps=4": 4}
    for setting, looks in leaps.items():
        taught = estimate(load("smoke/distill.yaml", [setting, "process.teacher_steps=4096"]))
        assert taught.training_flops == pytest.approx((3 + looks) * taught.flops_per_token)
        memory = taught.training_bytes - estimate(plain).training_bytes
        assert memory == 4 * taught.parameters  # the teacher's weights
    once = estimate(load("smoke/blocks.yaml"))
    assert (once.copies, once.training_flops) == (2, 6 * once.flops_per_token)
    twice = load("smoke/blocks.yaml", ["process.inner={type: diffusion, graph: absorbing, corruption: complementary}"])
    assert estimate(twice).copies == 4  # beside each copy of a block its clean text
