"""Blocks computed again: the same gradients to the digit, less kept, also in a copy; and `check` knows."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from workbench import assemble
from workbench.check import at_processes
from workbench.recipe import load
from workbench.train.recompute import recompute_blocks
from workbench.train.sharing import blocks_of

SEDD = Path(__file__).parents[2] / "recipes/smoke/sedd.yaml"
CHANGES = ["backbone.dropout=0.2", "backbone.depth=4"]


def network():
    resolved = load(SEDD, CHANGES)
    return assemble.model(resolved, assemble.data_of(resolved).tokenizer).backbone


def gradients(net):
    """(gradients by name, bytes that autograd keeps) of a step with dropout."""
    torch.manual_seed(1)
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x_BL = torch.arange(64).reshape(2, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        h_BLD = net(x_BL, torch.ones(2))
    held = sum(kept.values())
    h_BLD.square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}, held


def differing(one, two):
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize(("every", "blocks"), [(1, 4), (2, 2), (3, 2)])
def test_gradients_are_the_same_and_less_is_kept(every, blocks):
    net = network()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    plain, again = copy.deepcopy(net), copy.deepcopy(net)
    assert recompute_blocks(again, every) == blocks
    wanted, whole = gradients(plain)
    found, kept = gradients(again)
    assert differing(wanted, found) == []
    assert kept < whole * (1 - 0.6 * blocks / 4)
    other = copy.deepcopy(again)
    assert isinstance(blocks_of(other)[0], type(blocks_of(net)[0]))
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
    assert differing(wanted, gradients(other)[0]) == []


def test_check_predicts_it_and_it_is_the_same_run():
    plain, again = load(SEDD, CHANGES), load(SEDD, [*CHANGES, "train.recompute=1"])
    assert plain.hash == again.hash
    before, after = at_processes(plain, [2])[0], at_processes(again, [2])[0]
    assert after.activations < 0.7 * before.activations and after.held == before.held
