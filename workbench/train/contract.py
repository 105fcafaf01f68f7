"""What the parts of a training (schedules, optimizers, loggers, ways to share it) must satisfy: run on any part.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from workbench.core.checks import run_checks
from workbench.processes.base import Shell
from workbench.train.ema import Ema
from workbench.train.loggers import Logger
from workbench.train.optim import STATE, Optimizer, load_state, set_factor, state_tensors
from workbench.train.parallel import Parallel
from workbench.train.schedules import Schedule
from workbench.train.sharing import Sharing


def check_schedule(part: type[Schedule]) -> list[str]:
    """Problems of a schedule, in words."""
    return run_checks(Schedule, part, (_factors,))


def check_optimizer(part: type[Optimizer]) -> list[str]:
    """Problems of an optimizer, in words."""
    return run_checks(Optimizer, part, (_holds_each_parameter_once, _resumes, _says_its_state))


def check_logger(part: type[Logger]) -> list[str]:
    """Problems of a logger, in words."""
    return run_checks(Logger, part, (_shows_and_goes_on,))


def check_sharing(part: type[Sharing]) -> list[str]:
    """Problems of a way to share a training, in words."""
    return run_checks(Sharing, part, (_nothing_alone, _rows_suffice))


def _factors(schedule: Schedule) -> Iterator[str]:
    """Numbers ≥ 0, the first update moves, nothing is remembered."""
    for steps in (1, 7, 1000):
        factors = [schedule.factor(step, steps) for step in range(steps)]
        if not all(math.isfinite(factor) and factor >= 0 for factor in factors):
            yield f"{steps} steps: a factor is negative or no number"
        if not factors[0] > 0:
            yield f"{steps} steps: the first update has rate {factors[0]:g} and moves nothing"
        if [schedule.factor(step, steps) for step in reversed(range(steps))] != factors[::-1]:
            yield "the factor depends on more than the step"


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden, self.norm = nn.Embedding(7, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 6)

    def forward(self, x_BL: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(torch.tanh(self.hidden(self.embed(x_BL)))))

    def no_decay(self) -> set[str]:
        return set()


def _trained(net: _Net, optimizers: list[torch.optim.Optimizer], steps: int) -> None:
    x_BL = torch.arange(14).reshape(2, 7) % 7
    for _ in range(steps):
        set_factor(optimizers, 1.0)
        net.zero_grad()
        nn.functional.cross_entropy(net(x_BL).flatten(0, 1), x_BL.flatten() % 6).backward()
        for optimizer in optimizers:
            optimizer.step()


def _holds_each_parameter_once(part: Optimizer) -> Iterator[str]:
    """Every parameter is stepped, by one optimizer; groups say their ``rate``."""
    with torch.random.fork_rng(devices=[]):
        net = _Net()
        groups = [group for optimizer in part.build(net) for group in optimizer.param_groups]
        held = [id(parameter) for group in groups for parameter in group["params"]]
        if sorted(held) != sorted(id(parameter) for parameter in net.parameters()):
            yield "its optimizers do not hold each parameter exactly once"
        if not all("rate" in group for group in groups):
            yield "a group has no `rate` (the learning rate before the schedule)"
            return
        before = {name: value.clone() for name, value in net.named_parameters()}
        _trained(net, part.build(net), 3)
        still = [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
        if still:
            yield f"three steps leave {', '.join(still)} as they were"


def _resumes(part: Optimizer) -> Iterator[str]:
    """From its saved state it goes on bit by bit as without a stop."""
    with torch.random.fork_rng(devices=[]):
        net, other = _Net(), _Net()
        optimizers = part.build(net)
        _trained(net, optimizers, 3)
        other.load_state_dict(net.state_dict())
        others = part.build(other)
        tensors, values = state_tensors(optimizers, net)
        load_state(others, other, {name: value.clone() for name, value in tensors.items()}, values)
        _trained(net, optimizers, 2)
        _trained(other, others, 2)
        if not all(torch.equal(left, right) for left, right in zip(net.parameters(), other.parameters(), strict=True)):
            yield "after load_state it steps otherwise than without a stop"


def _says_its_state(part: Optimizer) -> Iterator[str]:
    """What ``state`` says is kept is kept after a step, to the number."""
    with torch.random.fork_rng(devices=[]):
        net = _Net()
        optimizers = part.build(net)
        _trained(net, optimizers, 1)
        said, kept = part.state(net), dict.fromkeys(dict(net.named_parameters()), 0)
        for key, value in state_tensors(optimizers, net)[0].items():
            kept[key.rpartition(STATE)[0]] += value.numel()
        for name, parameter in net.named_parameters():
            if kept[name] != (wanted := said[name].numbers(parameter.numel())):
                yield f"`state` says {wanted} numbers are kept of {name}; there are {kept[name]}"


def _shows_and_goes_on(logger: Logger) -> Iterator[str]:
    """It takes records with and without buckets and texts, ends, and is opened again on a longer log."""
    records: list[dict[str, Any]] = [
        {"step": 1, "time": 0.0, "values": {"train/a": 1.0, "train/b": None}},
        {
            "step": 2,
            "time": 1.0,
            "values": {"valid/a": 0.5},
            "buckets": {"bound": [[1.0, 2.0], [0.0, 0.0]]},
            "texts": {"valid/texts": ["one\n\ntwo", ""]},
        },
    ]
    before = copy.deepcopy(records)
    with tempfile.TemporaryDirectory() as folder:
        for done in range(len(records)):
            logger.open(Path(folder), {"train": {"steps": 2, "betas": [0.9, 0.99]}}, records[:done])
            for record in records[done:]:
                logger.show(record)
            logger.finish({"train": {"steps": 2}}, {"train/a": 1.0}, 2)
            logger.close()
    if records != before:
        yield "it changes the records that it is shown"


def _nothing_alone(part: Sharing) -> Iterator[str]:
    """One process trains the network itself, and looks at it with its averages in place."""
    with torch.random.fork_rng(devices=[]):
        shell, x_BL = Shell(_Net()), torch.arange(14).reshape(2, 7) % 7
        before = shell(_features, x_BL)
        shared = part.wrap(shell, torch.device("cpu"), Parallel())
        with shared.quiet(last=False):
            if not torch.equal(shared.model(_features, x_BL), before):
                yield "alone, its model gives other numbers than the network"
        ema = Ema(shared.shell.net, 0.5)
        with torch.no_grad():
            shared.shell.net.get_parameter("norm.bias").add_(1)
        with shared.looking(ema) as shown:
            if shown is None or shown.training or not torch.equal(shown(_features, x_BL), before):
                yield "alone, what is looked at are not the averages in evaluation mode"
        if not shared.shell.training or torch.equal(shared.model(_features, x_BL), before):
            yield "the weights do not come back after a look at the averages"


def _features(net: nn.Module, x_BL: torch.Tensor) -> torch.Tensor:
    return cast("torch.Tensor", net(x_BL))


def _rows_suffice(part: Sharing) -> Iterator[str]:
    """All rows are held by somebody, and one process holds all."""
    for rows in (1, 3, 8):
        held = [part.rows(rows, processes) for processes in (1, 2, 3, 16)]
        if held[0] != rows or any(not 0 < n <= rows for n in held) or held[1] * 2 < rows or held[2] * 3 < rows:
            yield f"of {rows} rows 1, 2, 3 and 16 processes hold {held}"
    if part.gathered(_Net(), 1):
        yield "a process alone gathers something"


CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "schedule": check_schedule,
    "optimizer": check_optimizer,
    "logger": check_logger,
    "parallel": check_sharing,
}
"""Kind → contract check."""
