"""Self-conditioning: hints by hand, one gradient, a bound that bounds and samples of the law that it bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from backbones.conditioning import Unconditioned
from backbones.transformer import Transformer
from graphs.absorbing import Absorbing
from graphs.noise import LogLinear
from samplers.base import Canvas
from samplers.enumeration import law_of
from samplers.lenses import SigmaHat
from samplers.predictors.first_hitting import FirstHitting
from samplers.self_conditioning import SelfConditioning
from tests.kernels.test_precision import Casts
from tests.samplers.toys import reverse
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.kernels.precision import cast_once
from workbench.processes.base import Shell
from workbench.processes.diffusion import Diffusion
from workbench.processes.estimators import MonteCarlo, Orders
from workbench.processes.objectives import ScoreEntropy
from workbench.processes.reading import Through
from workbench.processes.readouts import Normalised, Scaled
from workbench.processes.self_conditioned import SelfConditioned, Twice
from workbench.processes.time_draws import UniformTimes
from workbench.recipe import load

V, L = 3, 3
TEXTS = np.array(list(itertools.product(range(V), repeat=L)))


def made(share=0.5, readout=None, estimator=None) -> SelfConditioned:
    times = UniformTimes(eps=1e-3)
    readout = readout or Normalised()
    inner = Diffusion(V, L, Absorbing(V), LogLinear(), readout, ScoreEntropy(), times, estimator=estimator)
    return SelfConditioned(inner, share)


def network(hearing=True, dtype=torch.float64) -> Transformer:
    """A network that has much to say of masks, and heeds hints much, or not yet; it hears no σ."""
    torch.manual_seed(0)
    net = Transformer(V + 1, V + 1, L, 8, 1, 2, 4, dropout=0.0, conditioning=Unconditioned(), hints=True).to(dtype)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if hearing or not name.startswith("hint"):
                weight.add_(torch.randn_like(weight))
    return net


def expected(net, x_BL) -> torch.Tensor:
    """The hint of a text by hand, [B, L, D]."""
    p_BLV = net.head(net(x_BL))[..., :V].softmax(-1)
    return torch.where((x_BL == V).unsqueeze(-1), p_BLV @ net.embed.table.weight[:V], 0.0)


@torch.no_grad()
def order_nats(net, order) -> np.ndarray:
    """−log p of every text in one order, [V^L], by hand."""
    nats_N = torch.zeros(len(TEXTS), dtype=torch.float64)
    x_NL, x0_NL = torch.full((len(TEXTS), L), V), torch.from_numpy(TEXTS)
    for at in order:
        out_NLV = net.head(net(x_NL, hint_BLD=expected(net, x_NL)))[..., :V]
        nats_N -= out_NLV[:, at].log_softmax(-1).gather(-1, x0_NL[:, at : at + 1])[:, 0]
        x_NL[:, at] = x0_NL[:, at]
    return nats_N.numpy()


def gradients(net, loss) -> dict[str, torch.Tensor]:
    net.zero_grad(set_to_none=True)
    loss.nats.backward()
    return {name: weight.grad.clone() for name, weight in net.named_parameters()}


@pytest.fixture(scope="module")
def orders() -> np.ndarray:
    """−log p_π of every order and text of `network`, [L!, V^L]."""
    return np.stack([order_nats(network(), order) for order in itertools.permutations(range(L))])


# --- training ---------------------------------------------------------------------------------------------------


def test_without_a_hint_it_is_the_plain_process_to_the_digit():
    net, process = network(), made(share=0.0)
    told = process.prepare(TEXTS, np.arange(len(TEXTS)), 3, Rng(0))
    plain = process.inner.prepare(TEXTS, np.arange(len(TEXTS)), 3, Rng(0))
    assert torch.equal(told.x_BL, plain.x_BL) and not told.hinted
    loss = process.loss(Shell(net), told)
    assert torch.equal(loss.nats, process.inner.loss(Shell(net), plain).nats)
    found = gradients(net, loss)
    assert not found["hint.map.weight"].any(), "a gradient of 0, not none: DDP waits for every weight"
    assert all(grad.any() for name, grad in found.items() if not name.startswith("hint"))


def test_an_untrained_network_heeds_no_hint():
    net, process = network(hearing=False), made(share=1.0)
    told = process.prepare(TEXTS, np.arange(len(TEXTS)), 3, Rng(0))
    loss = process.loss(Shell(net), told)
    assert told.hinted and torch.equal(loss.nats, process.inner.loss(Shell(net), told).nats)
    assert gradients(net, loss)["hint.map.weight"].any(), "but it learns to"


@pytest.mark.parametrize("readout", [Normalised(), Scaled(V)], ids=["normalised", "scaled"])
def test_the_hint_of_a_known_law_is_its_expected_embedding(readout):
    net, law_V = network(), torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias[:V] = law_V.log() + 5.0  # a raw score's sum is no part of its law
    x_BL = torch.tensor([[V, 0, V], [1, V, 2]])
    due_BLD = (x_BL == V).unsqueeze(-1) * (law_V @ net.embed.table.weight[:V]).detach()
    process, sigma_1 = made(readout=readout).inner, torch.tensor([0.7])
    padded_R, real_R = torch.tensor([0, 2, 4, 0, 0]), torch.tensor([True, True, True, False, False])
    for twice in (Twice(process), Twice(process, padded_R, real_R)):
        torch.testing.assert_close(twice.hint(net, x_BL, sigma_1), due_BLD)
    clean_BLD = Twice(process).hint(net, torch.zeros(2, L, dtype=torch.long), sigma_1)
    assert clean_BLD.shape == due_BLD.shape and not clean_BLD.any()


@pytest.mark.parametrize("low", [False, True], ids=["float64", "bfloat16"])
def test_the_gradient_is_of_the_second_pass_alone(low):
    net, process = network(dtype=torch.float32 if low else torch.float64), made(share=1.0)
    told = process.prepare(TEXTS, np.arange(len(TEXTS)), 3, Rng(0))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        hint_BLD = Twice(process.inner).hint(net, told.x_BL, told.sigma_B)
        found = gradients(net, process.loss(Shell(net), told))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        fixed = Through(Shell(net), lambda net, x_BL, sigma_B: net(x_BL, sigma_B, hint_BLD=hint_BLD))
        due = gradients(net, process.inner.loss(fixed, told))
    assert not hint_BLD.requires_grad and hint_BLD.any()
    for name in due:
        torch.testing.assert_close(found[name], due[name], msg=name)
        assert found[name].any(), name


def test_hints_are_drawn_by_the_update_whatever_the_batch():
    process, seq_B = made(share=0.3), np.arange(len(TEXTS))
    whole = [process.prepare(TEXTS, seq_B, step, Rng(5)).hinted for step in range(300)]
    assert whole == [process.prepare(TEXTS[9:11], seq_B[9:11], step, Rng(5)).hinted for step in range(300)]
    assert abs(np.mean(whole) - 0.3) < 0.08  # three standard deviations
    assert whole != [process.prepare(TEXTS[:2], seq_B[:2], step, Rng(6)).hinted for step in range(300)]


def test_training_lowers_the_loss():
    net, process = network(hearing=False, dtype=torch.float32), made()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    text_BL = np.tile([[1, 1, 1]], (32, 1))
    for step in range(60):
        optimizer.zero_grad()
        process.loss(Shell(net), process.prepare(text_BL, np.arange(32), step, Rng(0))).nats.backward()
        optimizer.step()
    assert net.hint.map.weight.any()
    assert process.nll(Shell(net.eval()), text_BL[:4], np.arange(4), Rng(1), 16).nats_BK.mean() < 0.5


# --- the bound --------------------------------------------------------------------------------------------------


def test_one_order_has_the_exact_law_of_two_passes(orders):
    bound = made(estimator=Orders(left_to_right=True)).nll(Shell(network()), TEXTS, np.arange(len(TEXTS)), Rng(0), 1)
    np.testing.assert_allclose(bound.nats_BK[:, 0], orders[0], atol=1e-9)
    assert np.exp(-bound.nats_BK).sum() == pytest.approx(1.0, abs=1e-9)


def test_the_bound_bounds_and_is_that_of_two_passes(orders):
    """Of a network that hears no σ: the mean over orders, up to what the schedule's ends cost."""
    truth_N = -np.log(np.exp(-orders).mean(0))
    process, seq_B = made(estimator=MonteCarlo()), np.arange(len(TEXTS))
    bound = process.nll(Shell(network()), TEXTS, seq_B, Rng(0), 600)
    nats_N, error_N = bound.nats_BK.mean(1), bound.nats_BK.std(1) / 600**0.5
    assert bound.kind == "upper" and (nats_N + 3 * error_N > truth_N).all() and nats_N.mean() > truth_N.mean()
    assert (np.abs(nats_N - orders.mean(0)) < 4 * error_N + 0.01).all()
    alone = process.inner.nll(Shell(network()), TEXTS, seq_B, Rng(0), 600).nats_BK.mean(1)
    assert np.abs(nats_N - alone).max() > 0.1, "hints change the law of this network"


# --- sampling ---------------------------------------------------------------------------------------------------


def test_the_lens_draws_from_the_law_that_is_bounded(orders):
    view = made().view(Shell(network()).eval())
    law = law_of(reverse(FirstHitting(), 1, lenses=(SelfConditioning(),)), view)[(slice(V),) * L].reshape(-1)
    np.testing.assert_allclose(law.numpy(), np.exp(-orders).mean(0), atol=1e-9)
    plain = law_of(reverse(FirstHitting(), 1), view)[(slice(V),) * L].reshape(-1)
    inner = law_of(reverse(FirstHitting(), 1), made().inner.view(Shell(network()).eval()))
    assert torch.equal(plain, inner[(slice(V),) * L].reshape(-1)), "without the lens it is the plain network"
    assert (law - plain).abs().max() > 0.01


def test_a_text_costs_two_calls_a_look_and_hears_no_other():
    view = made().view(Shell(network()).eval())
    once = reverse("normalised", 6).draw(view, Canvas.blank(9, L), Rng(0))
    for lenses in ((SelfConditioning(),), (SelfConditioning(), SigmaHat())):
        twice = reverse("normalised", 6, lenses=lenses).draw(view, Canvas.blank(9, L), Rng(0))
        assert twice.calls == 2 * once.calls
        alone = reverse("normalised", 6, lenses=lenses).draw(view, Canvas.blank(2, L, first=4), Rng(0))
        assert torch.equal(alone.tokens_BL, twice.tokens_BL[4:6])


# --- what fits --------------------------------------------------------------------------------------------------

HEARING = "smoke/self-conditioned.yaml"


def faults(recipe, *overrides) -> list[str]:
    with pytest.raises(WorkbenchError) as error:
        load(recipe, overrides)
    return [str(problem) for problem in error.value.problems]


def test_what_does_not_fit_is_refused():
    (deaf,) = faults(HEARING, "backbone.hints=false")
    assert deaf.startswith("backbone: backbone 'transformer' hears no hints") and "hints: true" in deaf
    (untold,) = faults("smoke/sedd.yaml", "backbone.hints=true")
    assert "hears some hints, and process 'diffusion' tells none" in untold and "hints: false" in untold
    (lens,) = faults("smoke/sedd.yaml", "sampler.lenses=[self_conditioning]")
    assert lens.startswith("sampler.lenses[0]: lens 'self_conditioning' needs a HintedView")
    assert "Processes that fit: self_conditioned." in lens
    (later,) = faults(HEARING, "sampler.lenses=[sigma_hat, self_conditioning]")
    assert later.startswith("sampler.lenses[1]") and "put it first" in later
    assert any("needs a graph with a mask" in one for one in faults(HEARING, "process.inner.graph=uniform"))
    assert any("hints are for a network that sees a whole" in one for one in faults(HEARING, "backbone.causal=true"))
    around = "process={type: blocks, size: 8, inner: {type: self_conditioned, inner: {graph: absorbing}}}"
    assert any("nothing around it" in one for one in faults("smoke/blocks.yaml", around))
    assert load(HEARING, ["sampler.lenses=[self_conditioning, sigma_hat, guidance]"])


def test_a_network_without_hints_keeps_its_hash():
    """Runs of before there were hints are found."""
    resolved = load("smoke/sedd.yaml")
    assert resolved.data["backbone"]["hints"] is False
    assert "hints" not in resolved.node.find("backbone").material()
    assert load(HEARING).node.find("backbone").material()["hints"] is True


@torch.no_grad()
def test_without_a_gradient_both_passes_of_all_looks_share_casts():
    process, net = made(), network(dtype=torch.float32).eval().requires_grad_(False)
    x_BL, sigma_B = torch.full((2, L), V), torch.full((2,), 0.7, dtype=torch.float64)
    with cast_once(net), torch.autocast("cpu", torch.bfloat16), Casts(list(net.parameters())) as casts:
        view = process.view(Shell(net))
        for _ in range(3):
            view.hinted(x_BL, sigma_B).log_score(torch.arange(2 * L))
    assert 0 < casts.seen <= len(list(net.parameters()))
