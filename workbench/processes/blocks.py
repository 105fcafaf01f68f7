"""Block diffusion as a process around a process: text is written block after block, each by the process within."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from backbones.base import CachedBackbone
from samplers.base import BlockView, ScoreView, View
from workbench.core.bounds import Count
from workbench.core.errors import Problem
from workbench.core.part import Maker
from workbench.core.rng import Rng
from workbench.processes.around import Around
from workbench.processes.base import Bound, Loss, Noised, Process
from workbench.processes.reading import Through
from workbench.processes.views import device_of

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.core.node import Node

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NoisedBlocks(Noised):
    """A batch as the process within prepared it: ``x_BL`` holds blocks, [B · K, size], and rows count through them.

    ``clean_BT`` int64: the texts without their last blocks, T = L − size.
    """

    clean_BT: Tensor


@Process.register("blocks")
class Blocks(Around[Process]):
    """Block diffusion (BD3-LM; Arriola et al. 2025, eq. 3): log p(x) = Σ_b log p(x^b | x^<b), each factor a process.

    To the process within, a block is a text of ``size`` tokens: it noises each by noise of its own, weighs, scores and
    bounds it, and never learns of the clean blocks before, which the network sees beside it. So the bound of a text is
    the sum of its blocks' bounds. With ``size`` 1 and masks each bound is −log p(x_l | x_<l) itself; with ``size`` =
    length it is the process within and no more.

    Settings:
        inner: the process of one block, given those before.
        size: tokens of a block; divides data.length.
    """

    sees = frozenset({"block"})
    offers: ClassVar[type[View]] = BlockView
    usual: ClassVar[dict[str, Any]] = {"inner": {"type": "diffusion"}}

    def __init__(self, vocab: int, length: int, inner: Maker[Process], size: Count = 16) -> None:
        """Texts of ``length`` tokens, a multiple of ``size``."""
        super().__init__(inner(length=size))
        self.vocab, self.length, self.size = vocab, length, size
        self.copies *= 2  # beside each copy the clean text is read too

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A process that is none of a block, and texts that are no whole number of blocks."""
        yield from super().misfits(node, root)
        inner = node.settings["inner"]
        part: Any = inner.part
        corruption = inner.under("", "corruption")
        if corruption is not None and not cast("Any", corruption.part).whole:
            why = f"corruption {corruption.part.type_name!r} would keep the ends of every block, not those of the text"
            yield Problem(corruption.path, f"{why}; leave it out")
        if "all" not in part.sees or not issubclass(part.offers, ScoreView) or not part.encloses:
            known: dict[str, Any] = dict(Process.registered)
            fitting = [
                name
                for name, one in sorted(known.items())
                if one.encloses and "all" in one.sees and issubclass(one.offers, ScoreView)
            ]
            yield Problem(
                inner.path,
                f"a block is written by a process of scores that sees all of it and keeps no other network; process "
                f"{part.type_name!r} is none. What would fit: {', '.join(fitting)}.",
            )
        data = root.find("data")
        size, length = node.settings["size"], None if data is None else data.settings["length"]
        if length is not None and length % size:
            fitting = [str(one) for one in range(1, length + 1) if length % one == 0]
            yield Problem(
                f"{node.path}.size",
                f"data.length {length} is no whole number of blocks of {size}. What divides it: {', '.join(fitting)}",
            )

    def prepare(self, x0_BL: Ids, seq_B: Ids, step: int, rng: Rng) -> Noised:
        """Each block noised as a text of its own, at noise of its own."""
        noised = self.inner.prepare(*self._blocks(x0_BL, seq_B), step, rng)
        return NoisedBlocks(**vars(noised), clean_BT=self._clean(x0_BL))

    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """The inner loss of all blocks, by a network that sees the clean ones before each."""
        return self.inner.loss(Through(shell, Beside(cast("NoisedBlocks", noised).clean_BT)), noised)

    def nll(self, shell: nn.Module, x0_BL: Ids, seq_B: Ids, rng: Rng, draws: int) -> Bound:
        """The sum of the blocks' bounds; exact where theirs is (``estimator: {type: orders, left_to_right: true}``)."""
        read = Beside(self._clean(x0_BL).to(device_of(shell)))
        bound = self.inner.nll(Through(shell, read, together=True), *self._blocks(x0_BL, seq_B), rng, draws)

        def summed(nats_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return nats_N.reshape(len(x0_BL), -1, *nats_N.shape[1:]).sum(1)

        return Bound(summed(bound.nats_BK), bound.kind, {name: summed(part) for name, part in bound.parts.items()})

    def view(self, shell: nn.Module) -> View:
        """The network as a writer of blocks."""
        return WritingView(self, shell)

    def _blocks(self, x0_BL: Ids, seq_B: Ids) -> tuple[Ids, Ids]:
        """(texts cut into blocks [N, S], a number for each that no other block has)."""
        count = x0_BL.shape[1] // self.size
        seq_BK = np.asarray(seq_B)[:, None] * count + np.arange(count)
        return x0_BL.reshape(-1, self.size), seq_BK.reshape(-1)

    def _clean(self, x0_BL: Ids) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x0_BL[:, : x0_BL.shape[1] - self.size]))


class Beside:
    """Reads all blocks of a batch, each after the clean ones before it."""

    def __init__(self, clean_BT: Tensor) -> None:
        """``clean_BT``: the texts without their last blocks."""
        self.clean_BT = clean_BT

    def __call__(self, net: Backbone, x_NS: Tensor, sigma_N: Tensor | None) -> Tensor:
        """h_NSD. A corruption that draws a block several times has its copies stand together."""
        batch, size = len(self.clean_BT), x_NS.shape[1]
        count = self.clean_BT.shape[1] // size + 1
        copies = len(x_NS) // (batch * count)
        if copies == 1:
            return net.beside(x_NS, self.clean_BT, sigma_N)
        sigma_N = None if sigma_N is None else _turned(sigma_N, count, copies)
        h_NSD = net.beside(_turned(x_NS, count, copies), self.clean_BT.repeat_interleave(copies, 0), sigma_N)
        return _turned(h_NSD, copies, count)


def _turned(z_N: Tensor, first: int, second: int) -> Tensor:
    """[B · first · second, …] in the order [B · second · first, …]."""
    return z_N.unflatten(0, (-1, first, second)).transpose(1, 2).flatten(0, 2)


class WritingView(BlockView):
    """A network that sees its own block and the clean ones before, block by block."""

    def __init__(self, process: Blocks, shell: nn.Module) -> None:
        """``shell``: a Shell (or a wrapper of one) in eval mode."""
        self.process, self.shell = process, shell
        self.device, self.vocab = device_of(shell), process.vocab
        self.length, self.size, self.calls = process.length, process.size, 0

    def start(self, batch: int, keep: bool = True) -> Kept | Reread:
        """A cache of finished blocks; or, with ``keep`` false or a network that has none, the blocks themselves."""
        net = self.shell(lambda net: net)
        if keep and isinstance(net, CachedBackbone) and net.has_cache:
            return Kept(self, net.new_cache(batch))
        return Reread(self, torch.empty(batch, 0, dtype=torch.long, device=self.device))

    def block(self, context: Any) -> ScoreView:
        """The score of the block that follows: the inner process's own view of the network that knows the context."""
        view = cast("ScoreView", self.process.inner.view(Through(self.shell, context)))
        view.partial = False
        return view

    def commit(self, x_BS: Tensor, context: Any) -> Any:
        """The context with a finished block."""
        return context.commit(x_BS.to(self.device))


@dataclass(frozen=True)
class Kept:
    """Finished blocks as a cache; reads the block after them."""

    view: WritingView
    cache: Any

    def __call__(self, net: Backbone, x_BS: Tensor, sigma_B: Tensor | None) -> Tensor:
        """h_BSD."""
        self.view.calls += 1
        return net(x_BS, sigma_B, self.cache)

    def commit(self, x_BS: Tensor) -> Kept:
        """One network call."""
        self.view.calls += 1
        _, cache = self.view.shell(_commit, x_BS, self.cache)
        return Kept(self.view, cache)


def _commit(net: CachedBackbone, x_BS: Tensor, cache: Any) -> Any:
    return net.commit(x_BS, cache)


@dataclass(frozen=True)
class Reread:
    """Finished blocks as text that is read again with every look at the block after them: no cache, the same law."""

    view: WritingView
    clean_BT: Tensor

    def __call__(self, net: Backbone, x_BS: Tensor, sigma_B: Tensor | None) -> Tensor:
        """h_BSD: the last block's of a pass over all, in which the finished ones are read as if still written."""
        self.view.calls += 1
        count = self.clean_BT.shape[1] // x_BS.shape[1] + 1
        x_NS = torch.cat((self.clean_BT, x_BS), 1).reshape(-1, x_BS.shape[1])
        if sigma_B is not None and len(sigma_B) == len(x_BS):
            sigma_B = sigma_B.repeat_interleave(count, 0)
        return net.beside(x_NS, self.clean_BT, sigma_B).unflatten(0, (-1, count))[:, -1]

    def commit(self, x_BS: Tensor) -> Reread:
        """No network call."""
        return Reread(self.view, torch.cat((self.clean_BT, x_BS), 1))
