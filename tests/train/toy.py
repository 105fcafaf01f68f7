"""A tiny backbone, process and data to train in milliseconds, and a script around them that can be killed.

Run as a script it trains (or resumes) in the folder given: ``python -m tests.train.toy FOLDER '{"steps": 40}'``, also
under torchrun.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from backbones.base import Backbone
from samplers.base import View
from workbench.core.rng import Rng
from workbench.processes.base import BUCKETS, Bound, Loss, Noised, Process, Shell
from workbench.run import RunFolder
from workbench.train.base import Evaluator
from workbench.train.ddp import Ddp
from workbench.train.eight_bit import AdamW8bit
from workbench.train.fsdp import Fsdp
from workbench.train.loop import Trainer
from workbench.train.optim import AdamW, Muon, Optimizer
from workbench.train.parallel import join, leave
from workbench.train.schedules import Cosine
from workbench.train.section import Train

VOCAB, LENGTH, WIDTH = 11, 8, 16


class ToyNet(Backbone):
    """Embedding, one hidden matrix, norm, dropout, a head; and one parameter that asks to be left alone."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.apart = nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, x_BL, sigma=None, cache=None):
        h_BLD = self.embed(x_BL)
        h_BLD = h_BLD + self.dropout(torch.tanh(self.hidden(h_BLD)) @ (torch.eye(WIDTH) + self.apart))
        h_BLD = h_BLD + self.conv(h_BLD.transpose(1, 2)).transpose(1, 2)
        return self.norm(h_BLD)

    def no_decay(self):
        return {"apart"}

    def coarse_products(self):
        return {"hidden.weight", "hidden.bias"}


class ToyProcess(Process):
    """Predict each token from noised neighbours: cross-entropy of all positions. ``bad_steps`` give NaN."""

    sees = frozenset({"all"})
    offers = View

    def __init__(self, bad_steps: tuple[int, ...] = (), delay: float = 0.0) -> None:
        self.bad_steps, self.delay = bad_steps, delay
        self.states = self.outputs = VOCAB

    def prepare(self, x0_BL, seq_B, step, rng):
        time.sleep(self.delay)
        u_BL = rng.uniform("corrupt", step, seq_B, x0_BL.shape[1])
        x_BL = np.where(u_BL < 0.3, (u_BL * 1e6).astype(np.int64) % VOCAB, x0_BL)
        rows_R = torch.arange(x0_BL.size)
        weight_R = torch.ones(x0_BL.size)
        if step in self.bad_steps:
            weight_R[0] = float("nan")
        x, x0 = torch.from_numpy(x_BL), torch.from_numpy(np.ascontiguousarray(x0_BL))
        return Noised(
            x_BL=x,
            sigma_B=None,
            rows_R=rows_R,
            x_R=x.reshape(-1),
            target_R=x0.reshape(-1),
            sigma_R=None,
            weight_R=weight_R,
            bucket_R=rows_R % BUCKETS,
            tokens=x0_BL.size,
            bucket_tokens=torch.bincount(rows_R % BUCKETS, minlength=BUCKETS),
        )

    def loss(self, shell, noised):
        return shell(self._loss, noised)

    def _loss(self, net, noised):
        logits_RV = net.head(net(noised.x_BL).flatten(0, 1)).float()
        nats_R = nn.functional.cross_entropy(logits_RV, noised.target_R, reduction="none") * noised.weight_R
        sums = torch.zeros(BUCKETS).index_add_(0, noised.bucket_R, nats_R.detach())
        logs = {"bound/bucket": torch.stack([sums, noised.bucket_tokens.float()], -1), "most": nats_R.detach().max()}
        return Loss(nats_R.mean(), logs)

    def nll(self, shell, x0_BL, seq_B, rng, draws):
        return Bound(np.zeros((len(x0_BL), 1)), "exact")

    def view(self, shell):
        raise NotImplementedError


class ToyWindows:
    """Blocks that are a function of the step and the sequence number."""

    def __init__(self, batch: int = 8) -> None:
        self.size = batch

    def batch(self, step, rows=slice(None)):
        seq_B = step * self.size + np.arange(self.size)[rows]
        u_BL = Rng(5).uniform("text", 0, seq_B, LENGTH)
        return (np.cumsum((u_BL * 3).astype(np.int64), axis=1) + seq_B[:, None]) % VOCAB, seq_B


class Ticks:
    """An evaluator that looks at the weights it is shown."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.seen = delay, []

    def __call__(self, step, shell):
        assert not shell.training
        time.sleep(self.delay)
        total = float(sum(p.detach().double().sum() for p in shell.parameters()))
        self.seen.append((step, total))
        return {"total": total, "text": f"at {step}\n<b>"}


def settings(**changes) -> Train:
    """Settings for a short run."""
    optimizer: Optimizer = AdamW(lr=3e-3, weight_decay=0.1)
    if changes.pop("muon", False):
        optimizer = Muon(lr=3e-3, weight_decay=0.1)
    if changes.pop("eight_bit", False):
        optimizer = AdamW8bit(lr=3e-3, weight_decay=0.1)
    sharing = Fsdp(**changes.pop("fsdp")) if "fsdp" in changes else Ddp()
    defaults = dict(
        steps=40, batch=8, optimizer=optimizer, schedule=Cosine(warmup=5), parallel=sharing, ema=0.99,
        precision="fp32", threads=1, log_every=5, checkpoint_every=10, tensorboard=False,
    )  # fmt: skip
    return Train(**{**defaults, **changes})


def trainer(folder: Path, process: ToyProcess | None = None, evaluators=(), parallel=None, hparams=None, **changes):
    """A trainer of the toy in ``folder``'s run, made from scratch as a new session makes it."""
    torch.manual_seed(0)
    shell = Shell(ToyNet())
    run = RunFolder.create("toy", "0123456789abcdef", folder)
    chosen = settings(**changes)
    return Trainer(
        shell, process or ToyProcess(), ToyWindows(chosen.batch), chosen, Rng(3), run,
        evaluators=evaluators, bytes_per_token=2.0, parallel=parallel, hparams=hparams, quiet=True,
    )  # fmt: skip


def main(argv: list[str]) -> None:
    """Train in a folder: as a command, so that it can be killed."""
    folder, changes = Path(argv[0]), json.loads(argv[1]) if len(argv) > 1 else {}
    delay = changes.pop("delay", 0.0)
    looking, parallel = [Evaluator("ticks", 20, Ticks(changes.pop("look", 0.0)))], join()
    made = trainer(folder, ToyProcess(delay=delay), looking, parallel, **changes)
    with made.run.locked() if parallel.lead else nullcontext():
        made.fit()
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
