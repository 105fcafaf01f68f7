"""Writing by blocks: the enumerated law of the shipping loops, caches, lengths, what is given and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backbones.conditioning import Unconditioned
from graphs.noise import LogLinear
from samplers.base import Canvas
from samplers.blockwise import Blockwise
from samplers.enumeration import blocks_law
from samplers.predictors.first_hitting import FirstHitting
from samplers.predictors.normalised import Normalised
from samplers.reverse import Reverse
from samplers.shapers import Nucleus
from samplers.times import Uniform
from tests import oracle
from tests.processes.block_toys import ExactBlocks, blocks, transformer
from tests.samplers.toys import EPS, chi_square
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Shell
from workbench.processes.estimators import MaskCounts

VOCAB, LENGTH = 3, 4
JOINT = oracle.random_joint(VOCAB, LENGTH, seed=5)
FIRST = Reverse(FirstHitting(), Uniform())


def exact(size: int):
    """The view of a network that knows the law, with nearly infinite noise at t = 1."""
    return blocks(VOCAB, LENGTH, size, LogLinear(1e-9)).view(Shell(ExactBlocks(JOINT)).eval())


def network(size: int, length: int = 8, **settings):
    return blocks(VOCAB, length, size).view(Shell(transformer(VOCAB, length, **settings)).eval())


# --- the law ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
def test_first_hitting_in_blocks_writes_the_very_law(size):
    law = blocks_law(Blockwise(FIRST), exact(size), LENGTH // size)
    np.testing.assert_allclose(law.numpy(), JOINT, atol=1e-9)


def test_many_steps_a_block_come_to_the_law_at_first_order():
    errors = [
        oracle.total_variation(
            blocks_law(Blockwise(Reverse(Normalised(), Uniform(EPS), steps)), exact(2), 2).numpy(), JOINT
        )
        for steps in (8, 16, 64)
    ]
    print(errors)
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.25) and errors[2] < 0.01


def test_what_is_drawn_has_the_enumerated_law():
    canvas = Canvas.blank(6000, LENGTH)
    drawn = Blockwise(FIRST).draw(exact(2), canvas, Rng(1))
    assert chi_square(drawn.tokens_BL, JOINT) > 1e-3
    cut = Blockwise(FIRST).draw(exact(2), Canvas.blank(6000, 3), Rng(1))
    assert torch.equal(cut.tokens_BL, drawn.tokens_BL[:, :3]), "three tokens are the first three of four"


def test_shapers_act_within():
    """A nucleus of next to nothing leaves the likeliest token of each block's first writing."""
    greedy = Blockwise(Reverse(FirstHitting(), Uniform(), shapers=(Nucleus(1e-9),)))
    drawn = greedy.draw(exact(1), Canvas.blank(8, LENGTH), Rng(0)).tokens_BL
    law, likeliest = JOINT, []
    for _ in range(LENGTH):
        likeliest.append(int(law.reshape(VOCAB, -1).sum(-1).argmax()))
        law = law[likeliest[-1]]
    assert bool((drawn == torch.tensor(likeliest)).all())


# --- what is given ----------------------------------------------------------------------------------------------


def test_a_given_prefix_conditions_exactly():
    """One that ends within a block, and one that fills it."""
    for size, prefix in ((2, (1, 2, 0)), (2, (2, 1)), (4, (2, 0))):
        canvas = Canvas.blank(4000, LENGTH)
        canvas.x_BL[:, : len(prefix)], canvas.fixed_BL[:, : len(prefix)] = torch.tensor(prefix), True
        drawn = Blockwise(FIRST).draw(exact(size), canvas, Rng(2))
        assert bool((drawn.tokens_BL[:, : len(prefix)] == torch.tensor(prefix)).all())
        assert drawn.trace["unseen"] == 0
        given = oracle.restrict(JOINT, dict(enumerate(prefix)))
        assert chi_square(drawn.tokens_BL, given) > 1e-3


def test_tokens_given_later_are_held_and_counted_as_unseen():
    """The first block has the law it has anyway, the second that given the first and the token."""
    canvas = Canvas.blank(6000, LENGTH)
    canvas.x_BL[:, 3], canvas.fixed_BL[:, 3] = 1, True
    drawn = Blockwise(FIRST).draw(exact(2), canvas, Rng(3))
    first = JOINT.sum((2, 3), keepdims=True)
    second = JOINT[..., 1:2] / JOINT[..., 1:2].sum(2, keepdims=True)
    due = np.zeros_like(JOINT)
    due[..., 1:2] = first * second
    assert chi_square(drawn.tokens_BL, due) > 1e-3
    assert drawn.trace["unseen"] == 6000


def test_prefixes_of_all_lengths_in_one_batch():
    canvas = Canvas.blank(LENGTH + 1, LENGTH, first=3)
    canvas.x_BL[:] = torch.tensor([2, 1, 0, 2])
    canvas.fixed_BL[:] = torch.arange(LENGTH) < torch.arange(LENGTH + 1)[:, None]
    view = exact(2)
    whole = Blockwise(FIRST).draw(view, canvas, Rng(0)).tokens_BL
    assert torch.equal(whole[canvas.fixed_BL], canvas.x_BL[canvas.fixed_BL])
    for row in range(LENGTH + 1):
        alone = Canvas(*(value[row : row + 1] for value in vars(canvas).values()))
        assert torch.equal(Blockwise(FIRST).draw(view, alone, Rng(0)).tokens_BL[0], whole[row]), "in any batch"


def test_ids_that_are_no_tokens_are_refused():
    canvas = Canvas.blank(1, LENGTH)
    canvas.x_BL[0, :2], canvas.fixed_BL[0, :2] = VOCAB, True
    with pytest.raises(WorkbenchError, match="outside the vocabulary"):
        Blockwise(FIRST).draw(exact(2), canvas, Rng(0))


# --- caches, lengths, calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("inner", [FIRST, Reverse(Normalised(), Uniform(), 4)], ids=["first_hitting", "normalised"])
def test_with_and_without_a_cache_the_same_tokens(size, inner):
    canvas = Canvas.blank(5, 8)
    canvas.x_BL[1, :3], canvas.fixed_BL[1, :3] = 1, True
    kept, again = (
        Blockwise(inner, cache).draw(network(size, shortconv=3), canvas, Rng(7)).tokens_BL for cache in (True, False)
    )
    assert torch.equal(kept, again)
    assert len(kept.unique()) > 1 and bool((kept < VOCAB).all())


def test_texts_longer_than_training_and_of_any_length():
    view = network(4)
    long = Blockwise(FIRST).draw(view, Canvas.blank(3, 32), Rng(0)).tokens_BL
    assert long.shape == (3, 32) and bool(((long >= 0) & (long < VOCAB)).all())
    for length in (1, 8, 13):
        assert torch.equal(Blockwise(FIRST).draw(view, Canvas.blank(3, length), Rng(0)).tokens_BL, long[:, :length])


def test_network_calls_are_counted():
    """A look for each token where blocks are written one by one, and one for each finished block but the last."""
    view = network(4)
    canvas = Canvas.blank(2, 12)
    canvas.fixed_BL[:, :5] = True
    heard: list[float] = []
    drawn = Blockwise(FIRST).draw(view, canvas, Rng(0), heard.append)
    assert drawn.trace["calls"] == [1, 3 + 1, 4] and drawn.calls == view.calls == 9
    assert heard == sorted(heard) and heard[-1] == 1.0
    again = Blockwise(FIRST, cache=False).draw(view, canvas, Rng(0))
    assert again.trace["calls"] == [0, 3, 4] and again.calls == 7


def test_a_context_stays_valid():
    """Two continuations of one context do not disturb one another."""
    view = network(2)
    start = view.start(1)
    one, other = (view.commit(torch.tensor([pair]), start) for pair in ([0, 1], [2, 2]))
    x_BS, sigma_B = torch.tensor([[VOCAB, VOCAB]]), torch.ones(1, dtype=torch.float64)
    before = view.block(one).look(x_BS, sigma_B).clean(torch.arange(2))
    view.commit(torch.tensor([[1, 0]]), other)
    view.commit(torch.tensor([[1, 1]]), one)
    assert torch.equal(view.block(one).look(x_BS, sigma_B).clean(torch.arange(2)), before)
    assert not torch.allclose(view.block(other).look(x_BS, sigma_B).clean(torch.arange(2)), before)


def test_blocks_of_one_are_written_by_the_very_law_that_their_likelihood_is_of():
    net = transformer(VOCAB, LENGTH, conditioning=Unconditioned())
    process, texts = blocks(VOCAB, LENGTH, 1, estimator=MaskCounts()), oracle.states(VOCAB, LENGTH)
    law = blocks_law(Blockwise(FIRST), process.view(Shell(net).eval()), LENGTH)
    nats_B = process.nll(Shell(net), texts, np.arange(len(texts)), Rng(0), 1).nats_BK[:, 0]
    np.testing.assert_allclose(law.reshape(-1).numpy(), np.exp(-nats_B), rtol=1e-7)
