"""What a recipe will cost, before it runs: built on the meta device, where tensors have shapes and no
storage."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backbones.cost import count_parameters, flops_per_token
from workbench.activations import kept
from workbench.core import index
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.part import Part
from workbench.core.spec import build, resolve
from workbench.memory import Share, Shares, setting_of
from workbench.sketch import sketch
from workbench.train.sharing import Sharing


@dataclass(frozen=True)
class Estimate:
    """The cost of a recipe.

    ``parameters`` and ``non_embedding``: how many. ``flops_per_token``: forward, head included; ``training_flops`` of a
    token trained on: three times as much for each of the ``copies`` that the network reads of a sequence, and once for
    each look without gradient (a teacher's, a first pass). ``training_bytes``: the most that each of the recipe's
    ``processes`` holds (`Share.total`) under ``setting``: on the recipe's device (auto: this machine's), blocks not
    compiled and, unless they are computed again, the backward pass taking no more than the loss: `at_processes`, which
    takes seconds, tells both. ``vocab``: tokens; ``vocab_assumed`` where the text decides and 256 is a guess.
    ``tokens_per_step``: of one update.
    """

    parameters: int
    non_embedding: int
    flops_per_token: float
    training_flops: float
    training_bytes: int
    setting: str
    tokens_per_step: int
    vocab: int
    vocab_assumed: bool
    copies: int
    processes: int


def estimate(resolved: Resolved) -> Estimate:
    """Build the process and, on the meta device, the backbone of a recipe; count.

    Raises:
        RecipeError: they cannot be built with these settings, or a backbone cannot read a batch; with the path.
    """
    with _told("its sizes, train.batch and data.length decide it"):
        return _estimate(resolved)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever a network raises while it is built or costed becomes a problem of the recipe's backbone."""
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:  # a plug-in's network may raise anything, and torch does for sizes past all use
        reason = str(error).splitlines()[0] if str(error) else ""
        why = f"its cost cannot be told: {type(error).__name__}: {reason:.200}"
        raise RecipeError([Problem("backbone", f"{why} ({what})")]) from error


def _estimate(resolved: Resolved) -> Estimate:
    made = sketch(resolved)
    train = resolved.node.settings["train"].settings
    sharing: Sharing = build(train["parallel"])
    parameters, setting = count_parameters(made.backbone), setting_of(train, here=True)
    shares = Shares(train, made, whole=bool(train["recompute"]))  # which takes more in the backward pass
    return Estimate(
        parameters=parameters.total,
        non_embedding=parameters.non_embedding,
        flops_per_token=flops_per_token(made.backbone, made.length),
        training_flops=made.training_flops,
        training_bytes=shares.of(sharing, sharing.processes, setting).total,
        setting=str(setting),
        tokens_per_step=train["batch"] * made.length,
        vocab=made.vocab,
        vocab_assumed=made.assumed,
        copies=made.process.copies,
        processes=sharing.processes,
    )


def at_processes(resolved: Resolved, counts: Iterable[int]) -> list[Share]:
    """What a recipe takes of each process by every way to share a training, in this many processes, on its device
    (auto: CUDA), compiled where it says so.

    Raises:
        RecipeError: a backbone cannot be built, or cannot read a batch.
    """
    found = []
    with _told("its sizes, train.batch and data.length decide it"):
        made = sketch(resolved)
        train = resolved.node.settings["train"].settings
        own, setting, shares = train["parallel"], setting_of(train), Shares(train, made)
        for name in Sharing.names():
            node = own if own.part.type_name == name else resolve(Sharing, {"type": name}, "train.parallel")[0]
            sharing: Sharing = build(node)
            found += [shares.of(sharing, count, setting) for count in counts]
    return found


@dataclass(frozen=True)
class AtLength:
    """What one sequence of ``length`` tokens costs.

    ``flops_per_token``: forward, head included; ``activation_bytes``: what autograd keeps a token between forward and
    backward, as in `Estimate` but of no block that is computed again, head and casts of weights apart;
    ``state_bytes``: the whole cache of generated text, None without one.
    """

    length: int
    flops_per_token: float
    activation_bytes: float
    state_bytes: int | None


def at_lengths(resolved: Resolved, lengths: Iterable[int]) -> list[AtLength]:
    """The cost of a recipe's backbone as a function of length, without running it.

    Raises:
        RecipeError: it cannot be built for, or read, a sequence of one of them.
    """
    setting = setting_of(resolved.node.settings["train"].settings, here=True)
    found = []
    for length in lengths:
        with _told(f"at length {length}"):
            made = sketch(resolved, length)
            two, three = (kept(made.make, batch, length, setting, backward=False).between for batch in (2, 3))
            net, one = made.backbone, three - two  # casts of weights are in both
            found.append(AtLength(length, flops_per_token(net, length), one / length, net.state_bytes(length)))
    return found


@functools.cache
def contract_checks() -> dict[str, Callable[[type[Part]], list[str]]]:
    """The contract check of each kind that has one.

    Raises:
        WorkbenchError: a module of checks cannot be imported.
    """
    checks: dict[str, Callable[[type[Part]], list[str]]] = {}
    for name in index.contract_modules(index.scan()):
        index.import_module(name)
        checks.update(importlib.import_module(name).CHECKS)
    return checks


def contract_problems(parts: Iterable[type[Part]]) -> list[tuple[type[Part], list[str] | None]]:
    """What each part's contract checks find; None for a kind that has no checks.

    Raises:
        WorkbenchError: a module of checks cannot be imported.
    """
    checks = contract_checks()
    found: list[tuple[type[Part], list[str] | None]] = []
    for part in parts:
        check = checks.get(part.kind)
        try:
            found.append((part, None if check is None else check(part)))
        except WorkbenchError as error:
            found.append((part, [str(error)]))
        except Exception as error:
            found.append((part, [f"the checks could not end: {type(error).__name__}: {error}"]))
    return found
