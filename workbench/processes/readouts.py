"""Readouts: what a diffusion network's outputs mean as log-scores."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from graphs.base import Graph
from workbench.core.errors import Problem
from workbench.core.part import Part

if TYPE_CHECKING:
    from workbench.core.spec import Node


class Readout(Part, ABC, kind="readout", supplied=("vocab",)):
    """Head outputs → log-scores log p_σ(y)/p_σ(x), own entry 0.

    ``affine``: outputs plus a number per row (own entry excepted), so that a gradient in log-scores is, own entry
    zeroed, a gradient in outputs; others are differentiated automatically. ``masked_only``: for masks alone.
    ``normalised``: the scores are those of a normalised law of the clean token, whatever the outputs.
    """

    affine: ClassVar[bool] = False
    masked_only: ClassVar[bool] = False
    normalised: ClassVar[bool] = False

    def on(self, graph: Graph) -> Readout:
        """This readout beside its graph: itself, where outputs mean the same on every graph."""
        return self

    def total(self, out_RS: Tensor, sigma_R: Tensor, vocab: int) -> Tensor | None:
        """log Σ over tokens of the score, [R], of rows whose own state is no token (masks); overwrites ``out_RS``.

        None where only ``log_score`` tells. In place: of a chunk's passes over the vocabulary three remain.
        """
        return None

    def offset(self, sigma_R: Tensor) -> Tensor | None:
        """What ``total`` adds to the log-sum of a row's outputs, [R] float64; None where it is not such a sum."""
        return None

    def shift(self, sigma_R: Tensor) -> Tensor | None:
        """What an affine readout adds to a row's outputs, [R]; None where it is no number."""
        return None

    @abstractmethod
    def log_score(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S]; an affine readout may work in place when no gradient is recorded."""

    @classmethod
    def says_unigram(cls, graph: type[Graph]) -> bool:
        """Whether ``unigram_bias`` says a law on such a graph, and not None."""
        return False

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """Outputs for the tokens, [V], that say the law ``share_V`` at every σ; None where no constant can."""
        return None

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A readout for masks beside a graph on which tokens move too."""
        yield from super().misfits(node, root)
        graph = root.under("process", "graph")
        if cls.masked_only and graph is not None and not (graph.part.mask and graph.part.blind):
            why = "tokens move too" if graph.part.mask else "there is no mask"
            yield Problem(
                node.path,
                f"readout {cls.type_name!r} scales by a mask's noise, and on graph {graph.part.type_name!r} {why}; "
                f"leave the readout out or take the graph's usual one: {dict(graph.part.usual).get('readout')}",
            )


@Readout.register("scaled")
class Scaled(Readout):
    """SEDD's readout for absorbing graphs: outputs − log(e^σ − 1) − log V, so that a network that says nothing
    about the token (equal outputs) has scores that sum to what they should (SEDD, appendix C.2: scale_by_sigma).
    """

    affine = True
    masked_only = True

    def __init__(self, vocab: int) -> None:
        """``vocab``: number of tokens, the mask not counted."""
        self.log_vocab = float(torch.tensor(float(vocab)).log())

    def log_score(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S]."""
        return _own_zero(_add(out_RS, self._shift(sigma_R.to(out_RS.dtype)).unsqueeze(-1)), x_R)

    def total(self, out_RS: Tensor, sigma_R: Tensor, vocab: int) -> Tensor:
        """log Σ over tokens of the score."""
        out_RV = out_RS[:, :vocab]
        top_R1 = out_RV.amax(-1, keepdim=True)
        sums_R = out_RV.sub_(top_R1).exp_().sum(-1)
        return sums_R.double().log() + top_R1[:, 0] + self._shift(sigma_R.double())

    def offset(self, sigma_R: Tensor) -> Tensor:
        """−log(e^σ − 1) − log V."""
        return self._shift(sigma_R.double())

    def shift(self, sigma_R: Tensor) -> Tensor:
        """−log(e^σ − 1) − log V, in σ's type."""
        return self._shift(sigma_R)

    def _shift(self, sigma_R: Tensor) -> Tensor:
        return -torch.expm1(sigma_R).log() - self.log_vocab

    @classmethod
    def says_unigram(cls, graph: type[Graph]) -> bool:
        """Yes."""
        return True

    def unigram_bias(self, share_V: Tensor) -> Tensor:
        """log share + log V: scores that sum to what they should."""
        return share_V.log() + self.log_vocab


@Readout.register("plain")
class Plain(Readout):
    """Outputs *are* log-scores (SEDD on uniform graphs), the own entry set to 0."""

    affine = True

    def log_score(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S]."""
        return _own_zero(_add(out_RS, None), x_R)

    def shift(self, sigma_R: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(sigma_R)


class CleanLaw(Readout):
    """Base of readouts whose outputs, softmax over tokens, are a law of the clean token; the graph makes scores of it.

    A mask's output is not read. Any network can be used so: its score sum is what it should be.
    """

    normalised = True
    graph: Graph

    def __init__(self) -> None:
        """Read by the graph that ``on`` brings."""

    def on(self, graph: Graph) -> Readout:
        """A copy that knows the graph."""
        bound = copy.copy(self)
        bound.graph = graph
        return bound

    def log_score(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S]."""
        return self._scores(out_RS[..., : self.graph.vocab].log_softmax(-1), x_R, sigma_R)

    def total(self, out_RS: Tensor, sigma_R: Tensor, vocab: int) -> Tensor | None:
        """−log(e^σ − 1) on a blind graph, whatever the outputs."""
        return -torch.expm1(sigma_R.double()).log() if self.graph.blind else None

    @abstractmethod
    def _scores(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """What the graph makes of the law."""


@Readout.register("normalised")
class Normalised(CleanLaw):
    """Outputs are logits of the clean token's law given *all* positions, its own too: p(x_0 | x_t), as D3PM has it.

    s_y = Σ_x0 p(x0 | x) q(y | x0)/q(x | x0). On the absorbing graph log s = log_softmax(outputs) − log(e^σ − 1): score
    entropy is then MDLM's cross-entropy.
    """

    @classmethod
    def says_unigram(cls, graph: type[Graph]) -> bool:
        """Where a position that may move says nothing of its token."""
        return graph.blind

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """log share, where a position that may move says nothing of its token."""
        return share_V.log() if self.graph.blind else None

    def _scores(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        return self.graph.score_from_posterior(log_law_RV, x_R, sigma_R)


@Readout.register("leave_one_out")
class LeaveOneOut(CleanLaw):
    """Outputs are logits of the clean token's law given the *other* positions, as the losses of UDLM and DUO have it.

    s_y = q(y)/q(x) with q the law, noised. On masked rows of the absorbing graph it is the same as ``normalised``.
    """

    @classmethod
    def says_unigram(cls, graph: type[Graph]) -> bool:
        """Yes."""
        return True

    def unigram_bias(self, share_V: Tensor) -> Tensor:
        """log share."""
        return share_V.log()

    def _scores(self, log_law_RV: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        return self.graph.score_from_clean(log_law_RV, x_R, sigma_R)


def _add(out_RS: Tensor, shift: Tensor | None) -> Tensor:
    if torch.is_grad_enabled() and out_RS.requires_grad:
        return out_RS.clone() if shift is None else out_RS + shift
    return out_RS if shift is None else out_RS.add_(shift)


def _own_zero(log_score_RS: Tensor, x_R: Tensor) -> Tensor:
    return log_score_RS.scatter_(-1, x_R.unsqueeze(-1), 0.0)
