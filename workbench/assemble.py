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
from workbench.core.part import origin
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

    Raises:
        WorkbenchError: the network (of a plug-in) has no head.
    """
    length = int(resolved.data["data"]["length"])
    known = {"vocab": tokenizer.vocab, "eos": tokenizer.eos, "length": length}
    process: Process = _built(resolved, "process", known)
    sizes = {"states": process.states, "outputs": process.outputs, "length": length}
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(streams(resolved).integer("init"))
        backbone: Backbone = _built(resolved, "backbone", sizes)
    _require_head(backbone)
    return Model(tokenizer, process, Shell(backbone), length)


def watch_first_pass(net: Backbone) -> None:
    """See that the features of the next pass are [B, L, D], D what the head takes, and look at no later one.

    The shapes are the host's: no device is waited for. The pass raises:
        WorkbenchError: they are not; names the backbone and the command that checks all of its contract.
    """

    def look(module: torch.nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], h_BLD: Any) -> None:
        handle.remove()
        x_BL = args[0] if args else named["x_BL"]
        due = (*x_BL.shape, net.head.in_features)
        found = tuple(h_BLD.shape) if isinstance(h_BLD, torch.Tensor) else type(h_BLD).__name__
        if found != due:
            told = f"gives features {found} of tokens {tuple(x_BL.shape)}, where [B, L, D] = {due} is due"
            raise WorkbenchError(_breaks(cls, f"{told} (D is what its head takes)"))

    cls = type(net)  # FSDP2 gives it another
    handle = net.register_forward_hook(look, with_kwargs=True)


def _require_head(net: Backbone) -> None:
    """Losses, samplers and optimizers read the head, and none would say whose it is that is missing."""
    if not isinstance(getattr(net, "head", None), torch.nn.Linear):
        raise WorkbenchError(_breaks(type(net), "has no linear map self.head from its features to its outputs"))


def _breaks(cls: type[Backbone], how: str) -> str:
    file = origin(cls).rpartition(":")[0]
    return f"backbone {cls.type_name!r} {how}; all that is due of it: workbench check --contract {file}"


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
