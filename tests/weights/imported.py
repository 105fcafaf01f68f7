"""What the tests of published weights share: import by the command line, and look through the run's own view."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

from workbench import opening
from workbench.cli.main import main
from workbench.core.rng import Rng
from workbench.run import RunFolder
from workbench.train.checkpoint import list_steps, read


def say(*words) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def import_run(source, runs, *words) -> tuple[RunFolder, str]:
    """The run that an import makes, and what it said."""
    status, out, err = say("import", source, *words, "--runs", runs)
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("run: ")]
    return RunFolder(Path(line.split()[-1])), out


def ids(vocab: int, length: int = 8) -> list[str]:
    """Overrides for a network of ``vocab`` ids."""
    return [f"data.tokenizer={{type: ids, vocab: {vocab}}}", f"data.length={length}"]


def small(folder: Path, vocab: int) -> list[str]:
    """Overrides for an evaluation of seconds on a text of ids."""
    numbers = Rng(3).uniform("ids", 0, [0], 900)[0]
    lines = [" ".join(str(int(u * (vocab - 1))) for u in numbers[i : i + 60]) for i in range(0, 900, 60)]
    (folder / "ids.txt").write_text("\n".join(lines))
    return [
        f"data.corpus={{type: text, paths: ['{folder / 'ids.txt'}'], separator: \"\\n\"}}",
        "evaluations={final: {blocks: 2, draws: 2, samples: 2, batch: 2, metrics: [bits_per_byte, parameters]}}",
        "sampler.steps=4",
    ]


@torch.no_grad()
def log_scores(run: RunFolder, x_BL, sigma_B):
    """Log-scores [B, L, states] through the run's own view, reopened from its folder, in fp32."""
    opened = opening.open_trained(run.path)
    view = opened.model.process.view(opened.model.shell)
    look = view.look(x_BL, sigma_B.double())
    return look.log_score(torch.arange(x_BL.numel())).reshape(*x_BL.shape, -1)


def tensors(run: RunFolder, role: str = "model"):
    """The checkpoint's tensors of a role."""
    (step,) = list_steps(run.ckpt)
    return read(run.ckpt / f"step-{step:08d}", ("model", "ema")).tensors.get(role, {})


def same(left, right) -> bool:
    """Whether two maps of tensors are the same bits."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
