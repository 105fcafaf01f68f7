"""What follows a given beginning, by length of the beginning: nats a token, bounded on held-out blocks.

The conditional bound's integral over the trained times (its ends, the same for all runs to a hundredth, left out), told
the clock's σ and told σ̂ = −ln(1 − masks/L); the same blocks and noise for every run:

    python tests/benchmarks/continuations.py runs/quickstart-sedd-* runs/quickstart-sedd-prefix-* --given 0 4 16 64
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from workbench import assemble, opening
from workbench.core.rng import Rng
from workbench.evaluate import spread
from workbench.opening import Opened
from workbench.processes.corruptions import Draw
from workbench.processes.diffusion import Diffusion
from workbench.processes.likelihood import per_block
from workbench.processes.prefix import sigma_hat


@torch.no_grad()
def nats(opened: Opened, x0_BL: np.ndarray, given: int, hat: bool, draws: int) -> np.ndarray:
    """Nats a token of what follows the first ``given``, [B]."""
    process = opened.model.process
    assert isinstance(process, Diffusion)
    (batch, length), eps, rng = x0_BL.shape, process.times.eps, Rng(0)
    seq_B, total_B = np.arange(batch), np.zeros(batch)
    shift_B = rng.uniform("time", 0, seq_B, 1)[:, 0]
    given_NL = (torch.arange(length) < given).expand(batch, length)
    for k in range(draws):
        t = torch.from_numpy(eps + (1 - eps) * (k + shift_B) / draws)
        u_BL = torch.from_numpy(rng.uniform("corrupt", k, seq_B, length))
        weight = (1 - eps) * process.noise.rate(t)
        drawn = Draw(seq_B, t, process.noise.total(t), weight, u_BL, given_NL)
        drawn = replace(drawn, told_N=sigma_hat(drawn, given_NL, process.noise) if hat else None)
        noised = process.noised_by(x0_BL, drawn)
        total_B += per_block(opened.model.shell, process.bound_rows, noised, process.chunk, batch, length)
    return total_B / draws / (length - given)


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--given", type=int, nargs="+", default=[0, 4, 16, 64])
    parser.add_argument("--blocks", type=int, default=256)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    print("| run | σ | " + " | ".join(f"{k} given" for k in args.given) + " |\n" + "|---" * (2 + len(args.given)) + "|")
    first: dict[tuple[bool, int], np.ndarray] = {}
    for path in args.run:
        opened = opening.open_trained(path)
        data = assemble.prepare(opened.resolved, args.cache, None, path).valid
        blocks = data[spread(args.blocks, len(data))]
        for hat in (False, True):
            cells = []
            for given in args.given:
                found_B = nats(opened, blocks, given, hat, args.draws)
                apart_B = found_B - first.setdefault((False, given), found_B)
                spread_of = apart_B.std() / np.sqrt(len(apart_B))
                cells.append(f"{found_B.mean():.3f} ({apart_B.mean():+.3f} ± {spread_of:.3f})")
            print(f"| {path.name} | {'σ̂' if hat else 'clock'} | {' | '.join(cells)} |", flush=True)
    print("In brackets: less the first run's by the clock, on the same blocks and noise; ± one standard error.")


if __name__ == "__main__":
    main()
