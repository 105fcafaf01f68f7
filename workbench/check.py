"""What a recipe will cost, before it runs: built on the meta device, where tensors have shapes and no
storage."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.base import Backbone
from backbones.cost import count_parameters, flops_per_token
from workbench.core import index
from workbench.core.errors import Problem, RecipeError, WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.part import Part
from workbench.core.spec import build, resolve
from workbench.data.base import Tokenizer
from workbench.kernels.rows import chunk_rows
from workbench.processes.base import Process
from workbench.train.footprint import Footprint, footprint
from workbench.train.optim import Optimizer
from workbench.train.recompute import recompute_blocks
from workbench.train.sharing import Sharing

ASSUMED_VOCAB = 256
"""Vocabulary taken where the text decides it."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a recipe.

    ``parameters`` and ``non_embedding``: how many. ``flops_per_token``: forward, head included; ``training_flops`` of a
    token trained on: three times as much for each of the ``copies`` that the network reads of a sequence, and once for
    each look without gradient (a teacher's, a first pass). ``training_bytes``: of each of the recipe's ``processes``,
    weights, gradients, optimizer, average, teachers, activations of one micro-batch and two chunks of head outputs,
    all in fp32 (``train.float8`` changes none of these: its 8-bit copies live for a product at a time and are left
    out). ``vocab``: tokens; ``vocab_assumed`` where the text decides and 256 is a guess. ``tokens_per_step``: of
    one update.
    """

    parameters: int
    non_embedding: int
    flops_per_token: float
    training_flops: float
    training_bytes: int
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
    parameters = count_parameters(made.backbone)
    return Estimate(
        parameters=parameters.total,
        non_embedding=parameters.non_embedding,
        flops_per_token=flops_per_token(made.backbone, made.length),
        training_flops=_training_flops(made),
        training_bytes=_share(resolved, made, sharing, sharing.processes, "cpu").total,
        tokens_per_step=train["batch"] * made.length,
        vocab=made.vocab,
        vocab_assumed=made.assumed,
        copies=made.process.copies,
        processes=sharing.processes,
    )


@dataclass(frozen=True)
class Share:
    """What each of several processes holds, in bytes, and computes.

    ``held``: by `Footprint`; ``teachers``: whole networks that it learns from; ``activations``: of one micro-batch of
    ``sequences``; ``logits``: two chunks of head outputs as on a GPU. ``flops``: of an update, forward and backward.
    """

    parallel: str
    processes: int
    sequences: int
    held: Footprint
    teachers: int
    activations: int
    logits: int
    flops: float

    @property
    def total(self) -> int:
        """All that it holds."""
        return self.held.total + self.teachers + self.activations + self.logits


def at_processes(resolved: Resolved, counts: Iterable[int]) -> list[Share]:
    """What a recipe takes of each process by every way to share a training, in this many processes.

    Raises:
        RecipeError: a backbone cannot be built, or cannot read a batch.
    """
    found = []
    with _told("its sizes, train.batch and data.length decide it"):
        made = sketch(resolved)
        own = resolved.node.settings["train"].settings["parallel"]
        for name in Sharing.names():
            node = own if own.part.type_name == name else resolve(Sharing, {"type": name}, "train.parallel")[0]
            sharing: Sharing = build(node)
            found += [_share(resolved, made, sharing, count, "cuda") for count in counts]
    return found


def _training_flops(made: Sketch) -> float:
    return flops_per_token(made.backbone, made.length) * (3 * made.process.copies + made.process.looks)


def _share(resolved: Resolved, made: Sketch, sharing: Sharing, processes: int, device: str) -> Share:
    train = resolved.node.settings["train"].settings
    outputs = made.backbone.head.out_features
    optimizer: Optimizer = build(train["optimizer"])
    sequences = -(-train["batch"] // (train["accumulate"] * processes))
    return Share(
        parallel=sharing.type_name,
        processes=processes,
        sequences=sequences,
        held=footprint(made.backbone, made.backbone, optimizer, train["ema"] > 0, sharing, processes),
        teachers=4 * made.process.teachers * count_parameters(made.backbone).total,
        activations=_kept_bytes(made, made.process.copies * sequences, train["recompute"]),
        logits=2 * 4 * chunk_rows(outputs, device) * outputs,
        flops=_training_flops(made) * sequences * train["accumulate"] * made.length,
    )


@dataclass(frozen=True)
class Sketch:
    """A recipe's backbone on the meta device, its process. ``vocab`` tokens, ``assumed`` where the text decides;
    ``length``."""

    backbone: Backbone
    vocab: int
    assumed: bool
    length: int
    process: Process


def sketch(resolved: Resolved, length: int | None = None) -> Sketch:
    """Build the process and, on the meta device, the backbone. ``length``: another than the recipe's."""
    settings = resolved.node.settings
    tokenizer: Tokenizer = build(settings["data"]).tokenizer
    length = int(settings["data"].settings["length"]) if length is None else length
    planned = tokenizer.planned_vocab
    vocab = ASSUMED_VOCAB if planned is None else planned
    process: Process = build(settings["process"], {"vocab": vocab, "eos": vocab - 1, "length": length})
    shape = {"states": process.states, "outputs": process.outputs, "length": length}
    with torch.device("meta"):
        backbone: Backbone = build(settings["backbone"], shape)
    return Sketch(backbone, vocab, planned is None, length, process)


@dataclass(frozen=True)
class AtLength:
    """What one sequence of ``length`` tokens costs.

    ``flops_per_token``: forward, head included; ``activation_bytes``: what autograd keeps a token between forward and
    backward, in fp32, head apart; ``state_bytes``: the whole cache of generated text, None without one.
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
    found = []
    for length in lengths:
        with _told(f"at length {length}"):
            net = sketch(resolved, length).backbone
            kept = _activation_bytes(net, 1, length) / length
            found.append(AtLength(length, flops_per_token(net, length), kept, net.state_bytes(length)))
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


def _kept_bytes(made: Sketch, batch: int, every: int) -> int:
    """`_activation_bytes` where every ``every``-th block is computed again, one of them at a time."""
    whole = _activation_bytes(made.backbone, batch, made.length)
    if not every:
        return whole
    net = copy.deepcopy(made.backbone)
    again = recompute_blocks(net, every)
    kept = _activation_bytes(net, batch, made.length)
    return kept + (whole - kept) // max(1, again)


def _activation_bytes(backbone: Backbone, batch: int, length: int) -> int:
    """Bytes that autograd keeps between a forward and its backward pass, parameters apart."""
    own = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def give(tensor: Any) -> Any:
        return tensor

    x_BL = torch.zeros(batch, length, dtype=torch.long, device="meta")
    backbone.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        h_BLD = backbone(x_BL, torch.ones(batch, device="meta"))
    del h_BLD
    return sum(kept.values())
