"""The composition root: from a resolved recipe to objects that fit one another. Nothing else builds parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from backbones.base import Backbone
from backbones.cost import Parameters, count_parameters
from samplers.base import Sampler
from workbench.core.build import build
from workbench.core.errors import WorkbenchError
from workbench.core.loading import Resolved
from workbench.core.node import Node
from workbench.core.rng import Rng
from workbench.data.base import Progress, Tokenizer
from workbench.data.section import Data, Prepared
from workbench.metrics.base import Evaluation
from workbench.processes.base import Process, Shell
from workbench.train.section import Train

TOKENIZER = "tokenizer"
"""The folder of a run that keeps its tokenizer: a run samples without its corpus."""


@dataclass(frozen=True)
class Model:
    """What it takes to use a network: the tokens, the process it is trained by, the shell around its weights."""

    tokenizer: Tokenizer
    process: Process
    shell: Shell
    length: int

    @property
    def backbone(self) -> Backbone:
        """The network within the shell."""
        net: Backbone = self.shell.net  # type: ignore[assignment]
        return net

    @property
    def parameters(self) -> Parameters:
        """Its size."""
        return count_parameters(self.backbone)


def streams(resolved: Resolved) -> Rng:
    """All randomness of a recipe, by named streams."""
    return Rng(int(resolved.data["seed"]))


def data_of(resolved: Resolved) -> Data:
    """The recipe's data, nothing read yet."""
    return _built(resolved, "data", {})


def prepare(
    resolved: Resolved,
    cache: Path | str | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
    streams: Mapping[str, str] | None = None,
) -> Prepared:
    """Tokenizer trained, both splits packed (or found in the cache).

    ``folder``: a run that may have begun; its own tokenizer is used then, never one trained anew. ``streams``: those
    that another process of this training has just prepared.

    Raises:
        DataError: the text is missing, too short, or cannot be kept.
    """
    data = data_of(resolved)
    if folder is not None and not data.tokenizer.ready and (folder / TOKENIZER).is_dir():
        data.tokenizer.load(folder / TOKENIZER)
    return data.prepare(cache, progress, streams=streams)


def model(resolved: Resolved, tokenizer: Tokenizer, device: torch.device | str = "cpu") -> Model:
    """The process and a freshly initialised network for this tokenizer's ids. ``device``: "meta" costs nothing.

    Weights depend on the recipe's seed alone.
    """
    length = int(resolved.data["data"]["length"])
    known = {"vocab": tokenizer.vocab, "eos": tokenizer.eos, "length": length}
    process: Process = _built(resolved, "process", known)
    sizes = {"states": process.states, "outputs": process.outputs, "length": length}
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(streams(resolved).integer("init"))
        backbone: Backbone = _built(resolved, "backbone", sizes)
    return Model(tokenizer, process, Shell(backbone), length)


def start_at_unigram(made: Model, counts_V: npt.NDArray[np.int64]) -> None:
    """Set the head's bias to the frequencies of tokens (one added to each count).

    Raises:
        WorkbenchError: the head has no bias (it is tied), or the readout cannot say a law by a constant (of a plug-in
            that did not declare it: resolving refuses such a recipe before).
    """
    share_V = torch.from_numpy(counts_V).double() + 1
    bias = made.process.unigram_bias(share_V / share_V.sum())
    head = made.backbone.head
    if bias is None or head.bias is None:
        what = "the backbone's head has no bias" if head.bias is None else "the readout cannot say it by a constant"
        raise WorkbenchError(f"train.unigram_start: {what}; leave it false")
    with torch.no_grad():
        head.bias.copy_(bias)


def kept_tokenizer(resolved: Resolved, folder: Path) -> Tokenizer:
    """The tokenizer that a run keeps, without its corpus.

    Raises:
        DataError: the run keeps none.
    """
    tokenizer = data_of(resolved).tokenizer
    if not tokenizer.ready:
        tokenizer.load(folder / TOKENIZER)
    return tokenizer


def sampler(resolved: Resolved) -> Sampler:
    """The recipe's sampler."""
    return _built(resolved, "sampler", {})


def train_settings(resolved: Resolved) -> Train:
    """The recipe's ``train:`` section."""
    return _built(resolved, "train", {})


def evaluations(resolved: Resolved) -> dict[str, Evaluation]:
    """The recipe's evaluations by name."""
    nodes: Mapping[str, Node] = resolved.node.settings["evaluations"]
    return {name: build(node) for name, node in nodes.items()}


def _built(resolved: Resolved, section: str, supplied: Mapping[str, Any]) -> Any:
    node = resolved.node.find(section)
    assert node is not None, section  # every section is required, and resolving has seen to it
    return build(node, supplied)
