"""Block diffusion against enumerated laws, a left-to-right network and the plain process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backbones.conditioning import Unconditioned
from graphs.noise import Cosine, LogLinear
from graphs.noise_forms import Clipped
from graphs.uniform import Uniform
from tests import oracle
from tests.processes.block_toys import ExactBlocks, blocks, diffusion, transformer
from workbench.core.errors import RecipeError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.blocks import Beside
from workbench.processes.corruptions import Complementary, ExactCount
from workbench.processes.estimators import ImportanceOrders, MaskCounts, Orders
from workbench.processes.readouts import Plain
from workbench.recipe import load

VOCAB, LENGTH = 3, 4
JOINT = oracle.random_joint(VOCAB, LENGTH, seed=5)
TEXTS = oracle.states(VOCAB, LENGTH)
SEQ = np.arange(len(TEXTS))


# --- likelihood -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("estimator", [Orders(), Orders(left_to_right=True), ImportanceOrders()])
def test_the_exact_network_has_the_likelihood_of_the_law(size, estimator):
    """Every order of writing within blocks is right there, and the sum over blocks is −log p."""
    process = blocks(VOCAB, LENGTH, size, estimator=estimator)
    bound = process.nll(Shell(ExactBlocks(JOINT)), TEXTS, SEQ, Rng(0), 2)
    np.testing.assert_allclose(bound.nats_BK, -np.log(JOINT.reshape(-1, 1)) + 0 * bound.nats_BK, rtol=1e-9)
    np.testing.assert_allclose(sum(bound.parts.values()), bound.nats_BK.mean(1), rtol=1e-9)
    assert bound.kind == ("exact" if isinstance(estimator, Orders) and estimator.left_to_right else "upper")


def test_the_monte_carlo_bound_of_the_exact_network_is_its_likelihood():
    """In the mean over noise, a text's blocks each at levels of their own."""
    process, draws = blocks(VOCAB, LENGTH, 2), 400
    chosen = SEQ[::20]
    bound = process.nll(Shell(ExactBlocks(JOINT)), TEXTS[chosen], chosen, Rng(0), draws)
    mean, error = bound.nats_BK.mean(1), bound.nats_BK.std(1) / draws**0.5
    truth = -np.log(JOINT.reshape(-1)[chosen])
    assert (np.abs(mean - truth - bound.parts["prior"]) < 4 * error + 0.02).all(), (mean, truth, error)
    assert bound.parts["prior"].max() < 0.02


def left_to_right(net, texts) -> np.ndarray:
    """Σ_l −log p(x_l | x_<l) by hand: a mask at position l, read after the clean tokens before it."""
    nats = np.zeros(len(texts))
    for row, text in enumerate(texts):
        cache = net.new_cache(1)
        for token in text:
            out = net.head(net(torch.tensor([[VOCAB]]), None, cache))[0, 0, :VOCAB]
            nats[row] -= float(out.log_softmax(-1)[token])
            _, cache = net.commit(torch.tensor([[token]]), cache)
    return nats


@pytest.mark.parametrize("noise", [LogLinear(), Cosine(), Clipped(LogLinear(), 0.45, 0.95)])
def test_blocks_of_one_are_a_left_to_right_model_whatever_the_noise(noise):
    net = transformer(VOCAB, LENGTH, conditioning=Unconditioned())
    process = blocks(VOCAB, LENGTH, 1, noise, estimator=MaskCounts(), corruption=ExactCount())
    with torch.no_grad():
        due = left_to_right(net, TEXTS[::5])
    found = process.nll(Shell(net), TEXTS[::5], SEQ[::5], Rng(0), 3)
    np.testing.assert_allclose(found.nats_BK, due[:, None] + np.zeros((1, 3)), rtol=1e-8)
    noised = process.prepare(TEXTS[::5], SEQ[::5], 0, Rng(1))
    assert process.loss(Shell(net), noised).nats.item() * LENGTH == pytest.approx(due.mean(), rel=1e-5)
    every = process.nll(Shell(net), TEXTS, SEQ, Rng(0), 1)
    assert float(np.exp(-every.nats_BK).sum()) == pytest.approx(1, abs=1e-8), "a law over all texts"


def test_one_block_as_long_as_the_text_is_the_process_within():
    """Same weights, a network that sees all: the same figures to the last bit, and the same gradient."""
    net, plain_net = transformer(VOCAB, LENGTH), transformer(VOCAB, LENGTH, blockwise=False)
    process, plain = blocks(VOCAB, LENGTH, LENGTH), diffusion(VOCAB, LENGTH)
    one, other = (p.nll(Shell(n), TEXTS, SEQ, Rng(0), 3) for p, n in ((process, net), (plain, plain_net)))
    assert np.array_equal(one.nats_BK, other.nats_BK) and one.kind == other.kind == "upper"
    assert all(np.array_equal(part, other.parts[name]) for name, part in one.parts.items())
    losses = [p.loss(Shell(n), p.prepare(TEXTS, SEQ, 2, Rng(0))).nats for p, n in ((process, net), (plain, plain_net))]
    assert losses[0].item() == losses[1].item()
    for loss in losses:
        loss.backward()
    for (name, mine), its in zip(net.named_parameters(), plain_net.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad), name


# --- training ---------------------------------------------------------------------------------------------------


def test_the_loss_is_an_unbiased_draw_of_the_bound():
    process, x0 = blocks(VOCAB, LENGTH, 2), TEXTS[[7]]
    shell, draws = Shell(ExactBlocks(JOINT)), 1500
    losses = [
        LENGTH * process.loss(shell, process.prepare(x0, np.array([step]), step, Rng(3))).nats.item()
        for step in range(draws)
    ]
    due = process.nll(shell, x0, np.array([0]), Rng(0), draws).parts["diffusion"][0]
    assert abs(np.mean(losses) - due) < 4 * np.std(losses) / draws**0.5 + 0.02


def test_each_block_has_noise_of_its_own_that_does_not_depend_on_the_batch():
    process = blocks(VOCAB, LENGTH, 2)
    whole = process.prepare(TEXTS[10:20], SEQ[10:20], 1, Rng(0))
    part = process.prepare(TEXTS[13:16], SEQ[13:16], 1, Rng(0))
    assert whole.x_BL.shape == (20, 2) and len(whole.sigma_B.unique()) == 20
    assert torch.equal(whole.x_BL[6:12], part.x_BL) and torch.equal(whole.sigma_B[6:12], part.sigma_B)
    assert torch.equal(whole.clean_BT, torch.from_numpy(TEXTS[10:20, :2])) and whole.tokens == 40
    moved = whole.to(torch.device("meta"))
    assert moved.clean_BT.is_meta and moved.x_BL.is_meta


@pytest.mark.parametrize("size", [1, 2])
def test_a_gradient_reaches_all_weights_from_clean_text_too(size):
    net = transformer(VOCAB, LENGTH, neighbours=0).train()
    process = blocks(VOCAB, LENGTH, size)
    process.loss(Shell(net), process.prepare(TEXTS, SEQ, 0, Rng(0))).nats.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_copies_of_a_block_are_read_after_its_own_text():
    """``complementary`` hands every block in twice, the copies together."""
    net, copies, size = ExactBlocks(JOINT), 2, 2
    texts = torch.from_numpy(TEXTS[[5, 40, 71]])
    clean_BT = texts[:, :size]
    x_NS = torch.randint(0, VOCAB + 1, (3 * 2 * copies, size), generator=torch.Generator().manual_seed(0))
    found = Beside(clean_BT)(net, x_NS, torch.arange(12.0))
    for n, x_S in enumerate(x_NS):
        text, block = n // (2 * copies), n // copies % 2
        due = net(x_S[None], None, texts[text : text + 1, : block * size])[0]
        assert torch.equal(found[n], due)
    process = blocks(VOCAB, LENGTH, size, corruption=Complementary())
    noised = process.prepare(TEXTS[:6], SEQ[:6], 0, Rng(0))
    assert len(noised.x_BL) == 24
    assert torch.isfinite(process.loss(Shell(transformer(VOCAB, LENGTH)), noised).nats)


def test_other_graphs_within():
    """The uniform graph in blocks: a bound that is one (no text has more than its share)."""
    process = blocks(VOCAB, LENGTH, 2, graph=Uniform(VOCAB), readout=Plain())
    net = transformer(VOCAB, LENGTH)
    net.head = torch.nn.Linear(16, VOCAB).double()
    bound = process.nll(Shell(net), TEXTS, SEQ, Rng(0), 8)
    assert process.states == VOCAB and float(np.exp(-bound.nats_BK.mean(1)).sum()) < 1


# --- fits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        (["backbone.blockwise=false"], "backbone", "What would fit: blockwise: true"),
        (["backbone.causal=true"], "backbone.blockwise", "set one of the two"),
        (["process.size=5"], "process.size", "What divides it: 1, 2, 4, 8, 16, 32"),
        (["process.inner={type: autoregressive}"], "process.inner", "process 'autoregressive' is none"),
        (["process.inner={type: blocks, inner: {graph: absorbing}}"], "process.inner", "What would fit: diffusion"),
        (["sampler=reverse"], "sampler", "What would fit: blockwise"),
        (["process={type: diffusion, graph: absorbing}"], "sampler", "needs a BlockView"),
        (["process={type: diffusion, graph: absorbing}"], "backbone", "sees 'block'"),
        (["sampler.inner={type: left_to_right}"], "sampler.inner", "needs a NextTokenView"),
        (["process.inner.graph=uniform"], "sampler.inner.predictor", "needs a graph with a mask"),
        (["process.inner.graph=uniform", "process.inner.readout=scaled"], "process.inner.readout", "there is no mask"),
    ],
)
def test_what_does_not_fit_is_told_while_resolving(overrides, place, words):
    with pytest.raises(RecipeError) as caught:
        load("recipes/smoke/blocks.yaml", overrides)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert words in found.get(place, ""), found

