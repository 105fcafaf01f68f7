"""Muon on rows of matrices: the weights of torch's on whole ones, to the last bit; and no more memory than said."""

from __future__ import annotations

import multiprocessing
import os
import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.train.test_train_gathered import WORLD, Peak, many  # noqa: F401 (a fixture)
from workbench.train.ddp import Ddp
from workbench.train.footprint import footprint
from workbench.train.fsdp import Fsdp
from workbench.train.muon import CutMuon
from workbench.train.optim import AdamW, Muon
from workbench.train.pieces import whole

SHAPES = [(16, 16), (48, 16), (16, 48), (33, 20), (3, 5), (1, 7), (64, 8), (5, 40), (130, 60)]
"""Square, tall and wide; what 2 and 4 do not divide; fewer rows than processes."""
WAYS = [
    {},
    {"nesterov": False, "weight_decay": 0.1},
    {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.1, "momentum": 0.8, "ns_steps": 3},
]


def updated(optimizer, place, **settings):
    """Matrices after four updates by gradients that are the same everywhere; ``place`` cuts a tensor."""
    torch.manual_seed(0)
    matrices = [nn.Parameter(place(torch.randn(shape))) for shape in SHAPES]
    made = optimizer([{"params": matrices}], lr=0.02, **settings)
    for step in range(4):
        for index, matrix in enumerate(matrices):
            drawn = torch.randn(SHAPES[index], generator=torch.Generator().manual_seed(100 * step + index))
            matrix.grad = None if index == 3 and step == 1 else place(drawn)  # one that an update leaves out
        made.step()
    return [whole(matrix.detach()) for matrix in matrices]


def work(rank: int, port: int, folder) -> None:
    """One of four processes: all of them, then the first two."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=4)
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Shard, distribute_tensor

    for world in (4, 2):
        mesh = DeviceMesh("cpu", list(range(world)))
        if rank < world:
            for way, settings in enumerate(WAYS):
                found = updated(CutMuon, lambda t, mesh=mesh: distribute_tensor(t, mesh, [Shard(0)]), **settings)
                torch.save(found, folder / f"{world}-{way}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("muon")
    os.environ["OMP_NUM_THREADS"] = "1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [multiprocessing.get_context("spawn").Process(target=work, args=(rank, port, made)) for rank in range(4)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * 4
    return made


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("way", range(len(WAYS)))
def test_rows_are_stepped_as_whole_matrices_are_to_the_last_bit(folder, world, way):
    due = updated(torch.optim.Muon, lambda tensor: tensor, **WAYS[way])
    for rank in range(world):
        found = torch.load(folder / f"{world}-{way}-{rank}.pt")
        assert [shape for shape, a, b in zip(SHAPES, found, due, strict=True) if not torch.equal(a, b)] == []


class Matrices(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (512, 512, 64, 64)  # the second of the largest falls to process 1
        self.maps = nn.ModuleList(nn.Linear(256, width, bias=False) for width in widths)
        self.head = nn.Linear(8, 8)

    def no_decay(self):
        return set()


def test_memory_of_a_step_is_what_was_predicted(many):  # noqa: F811
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    net, mesh = Matrices(), init_device_mesh("cpu", (WORLD,))
    said = Muon().gathered(net)
    assert said == 2 * (3 * 512 * 256 + 2 * 256 * 256)
    for layer in net.maps:
        layer.weight = nn.Parameter(distribute_tensor(torch.zeros_like(layer.weight), mesh, [Shard(0)]))
        layer.weight.grad = distribute_tensor(torch.ones_like(whole(layer.weight)), mesh, [Shard(0)])
    made = Muon().build(net)[0]
    assert type(made) is CutMuon and len(made.param_groups[0]["params"]) == 4
    made.step()
    held = sum(3 * p.to_local().nbytes for p in made.param_groups[0]["params"])  # rows, their gradient and momentum
    with Peak() as peak:
        made.step()
    assert 0.8 * said < peak.most - held < 1.05 * said, (said, peak.most - held)


def test_check_knows_what_a_step_gathers():
    """Under fsdp the larger of what blocks and what a step gather, under ddp nothing; AdamW gathers nothing."""
    net = Matrices()
    sharing = Fsdp()
    blocks = sharing.gathered(net, 8)
    gathered = [footprint(net, net, o, True, s, n).gathered for o, s, n in
                ((Muon(), sharing, 8), (AdamW(), sharing, 8), (Muon(), Ddp(), 8), (Muon(), sharing, 1))]  # fmt: skip
    assert gathered == [max(blocks, Muon().gathered(net)), blocks, 0, 0]
    assert AdamW().gathered(net) == 0
