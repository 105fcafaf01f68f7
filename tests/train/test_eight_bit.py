"""AdamW with moments of one byte: codes beside the nearest of all, steps beside the formula, memory to a byte."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.train.toy import ToyNet, trainer
from workbench.processes.base import named_weights
from workbench.train.eight_bit import MEAN, SCALE, SQUARE, AdamW8bit, block_of, encode, values_of
from workbench.train.optim import STATE, AdamW, Kept, load_state, set_factor, split, state_tensors

BETA1, BETA2, EPS, LR, DECAY = 0.9, 0.95, 1e-8, 1e-2, 0.3
SETTINGS = {"lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECAY}


class Net(nn.Module):
    """Rows of 512 (two blocks), of 130 (one), of 7 (none); a bias, a number; more than is stepped at once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 130)
        self.hidden = nn.Linear(512, 600)
        self.narrow = nn.Linear(7, 3, bias=False)
        self.number = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(130, 5)

    def no_decay(self):
        return set()


def give_gradients(net, step):
    """The same for every network at a step: rows of very different size, one of them 0."""
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
        if p.ndim > 1:
            p.grad *= 10.0 ** -torch.arange(len(p)).fmod(9)[:, None]
            p.grad[1] = 0


def steps(net, optimizers, count, start=0):
    for step in range(start, start + count):
        give_gradients(net, step)
        set_factor(optimizers, 1.0)
        for optimizer in optimizers:
            optimizer.step()


def decoded(tensors, name, piece):
    """The oracle's reading of a moment, in float64."""
    codes = tensors[f"{name}{STATE}{piece}"]
    if codes.dtype != torch.uint8:
        return codes.double()
    scale = tensors[f"{name}{STATE}{piece}{SCALE}"].double()
    values = values_of(piece == MEAN).double()[codes.long()]
    return (values.view(*scale.shape, -1) * scale[..., None]).view(codes.shape)


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_dettmers_and_codes_are_the_nearest(signed):
    """256 numbers that grow denser towards 1; every code within a hair of the nearest of them, by trying all."""
    values = values_of(signed).double()
    assert len(values.unique()) == 256 and values.max() == 1
    assert float(values.min()) == pytest.approx(-0.993, abs=1e-3) if signed else values.min() > 0
    assert (0 in values) == signed
    numbers = torch.cat((torch.logspace(-9, 0, 4001), torch.linspace(0, 1, 4001)))
    numbers = torch.cat((numbers, -numbers[numbers <= 0.993])) if signed else numbers
    distances = (numbers.double()[:, None] - values).abs()
    found = distances.gather(1, encode(numbers, signed).long()[:, None])[:, 0]
    assert (found <= distances.min(1).values + numbers.abs() * 2**-9).all()
    assert torch.equal(encode(values_of(signed), signed), torch.arange(256).to(torch.uint8))


def test_blocks_lie_within_rows():
    shapes = {(4, 512): 256, (4, 130): 130, (4, 768): 256, (4, 192): 192, (4, 7): 0, (4, 257): 0, (300,): 0, (): 0}
    shapes |= {(4, 1, 8): 8, (4, 1, 4): 0, (2049, 384): 192}
    assert {shape: block_of(torch.zeros(shape)) for shape in shapes} == shapes
    assert block_of(torch.zeros(4, 512, dtype=torch.bfloat16)) == 0


def test_the_first_step_is_adamws_to_the_last_digit():
    """From moments of 0 nothing is rounded before the weights move."""
    net, twin = Net(), Net()
    steps(net, AdamW8bit(**SETTINGS).build(net), 1)
    steps(twin, AdamW(**SETTINGS).build(twin), 1)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7, msg=name)


def test_every_step_follows_the_formula_from_the_moments_that_are_kept():
    net = Net()
    optimizers = AdamW8bit(**SETTINGS).build(net)
    decays = {id(p) for p in split(net)[1]}
    for step in range(4):
        before = {name: p.detach().double() for name, p in net.named_parameters()}
        kept = {key: value.clone() for key, value in state_tensors(optimizers, net)[0].items()}
        steps(net, optimizers, 1, start=step)
        now = state_tensors(optimizers, net)[0]
        for name, p in net.named_parameters():
            g, old = p.grad.double(), [decoded(kept, name, piece) if kept else 0.0 for piece in (MEAN, SQUARE)]
            m, v = BETA1 * old[0] + (1 - BETA1) * g, BETA2 * old[1] + (1 - BETA2) * g * g
            bias1, bias2 = 1 - BETA1 ** (step + 1), 1 - BETA2 ** (step + 1)
            moved = before[name] * (1 - LR * DECAY * (id(p) in decays))
            moved = moved - LR * (m / bias1) / ((v / bias2).sqrt() + EPS)
            torch.testing.assert_close(p.detach().double(), moved, rtol=1e-4, atol=1e-5, msg=f"{name} at {step}")
            for piece, exact in ((MEAN, m), (SQUARE, v)):
                found, block = decoded(now, name, piece), block_of(p)
                if not block:
                    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-8)
                    continue
                most = exact.view(-1, block).abs().amax(1, keepdim=True)
                wrong = (found - exact).view(-1, block).abs()
                # half of the widest gap of the map (0.1 to 1 by 64 or 128 parts), and what leading bits leave out
                assert (wrong <= most * (0.45 / (64 if piece == MEAN else 128) + 2**-9)).all(), (name, piece)


def test_a_weight_whose_gradient_ends_does_not_run_away():
    """Beside a neighbour in its block that is a million times larger the second moment would round to 0."""
    net = Net()
    optimizers = AdamW8bit(lr=LR, beta1=BETA1, beta2=BETA2).build(net)
    begun = net.hidden.weight.detach().clone()
    for step in range(20):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        net.hidden.weight.grad[:, 0] = 1.0
        net.hidden.weight.grad[:, 1] = 1e-6 * (step < 3)
        set_factor(optimizers, 1.0)
        optimizers[0].step()
    moved = (net.hidden.weight - begun).abs()
    assert moved[:, 0].min() > 10 * LR and moved[:, 1].max() < 20 * LR and moved[:, 2:].max() == 0


def test_it_learns_as_adamw_does(tmp_path):
    """The toy's loss after 40 updates, at the same seed."""
    ends = {}
    for part in (AdamW, AdamW8bit):
        made = trainer(tmp_path / part.__name__, optimizer=part(lr=3e-3, weight_decay=0.1))
        ends[part] = made.fit().values["train/loss_nats_per_token"]
    assert ends[AdamW8bit] == pytest.approx(ends[AdamW], rel=0.01) and ends[AdamW8bit] != ends[AdamW]


def test_a_checkpoint_holds_plain_tensors_and_training_goes_on_to_the_same_bits(tmp_path):
    optimizer = {"optimizer": AdamW8bit(lr=3e-3, weight_decay=0.1)}
    whole = trainer(tmp_path / "whole", **optimizer)
    whole.fit()
    half = trainer(tmp_path / "half", **optimizer)
    half.stopping.reason = lambda step, seconds: "half" if step == 17 else ""
    half.fit()
    again = trainer(tmp_path / "half", **optimizer)
    again.fit()
    for (name, p), q in zip(named_weights(whole.shell.net).items(), again.shell.net.parameters(), strict=True):
        assert torch.equal(p, q), name
    found = again.checkpoints.load_last().tensors["optimizer"]
    assert all(type(value) is torch.Tensor for value in found.values())
    assert found[f"hidden.weight{STATE}{MEAN}"].dtype == torch.uint8


def test_memory_is_what_is_said_to_the_byte_and_survives_loading():
    net = Net()
    part = AdamW8bit(**SETTINGS)
    optimizers = part.build(net)
    steps(net, optimizers, 1)
    others = part.build(net)
    load_state(others, net, *state_tensors(optimizers, net))
    said = part.state(net)
    assert said["hidden.weight"] == Kept(0, 1, 2, 256) and said["narrow.weight"] == Kept(2, 1)
    for held in (optimizers, others):
        tensors = state_tensors(held, net)[0]
        for name, p in net.named_parameters():
            mine = [value for key, value in tensors.items() if key.startswith(name + STATE)]
            assert sum(t.numel() * t.element_size() for t in mine) == said[name].bytes(p.numel(), 4), name
    assert said["hidden.weight"].bytes(600 * 512, 4) < 0.26 * 8 * 600 * 512


def test_no_numbers_are_stepped_to_nowhere():
    """Gradients of 0 from the first step on, as of tokens that never come: nothing moves, nothing is not a number."""
    net = ToyNet()
    begun = {name: p.clone() for name, p in net.named_parameters()}
    optimizers = AdamW8bit(lr=LR).build(net)
    for _ in range(3):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizers[0].step()
    assert all(torch.equal(p, begun[name]) for name, p in net.named_parameters())
