"""Objectives: nats of a row from what the network says there; pure, row-separable, fused with the head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from graphs.base import Graph, gather_own
from workbench.core.errors import Problem
from workbench.core.part import Part
from workbench.kernels.row_passes import ExpPlan, Plan, SoftmaxPlan
from workbench.processes.fits import needs_graph, needs_masks_only
from workbench.processes.readouts import Readout

if TYPE_CHECKING:
    from workbench.core.node import Node

Context = dict[str, Tensor]
"""Per-row tensors: ``x`` (input ids), ``target`` (clean tokens), ``sigma`` (total noise)."""


class Objective(Part, ABC, kind="objective"):
    """A training objective of a diffusion process, per unit of σ (the process weighs it by dσ/dt).

    What is trained on; likelihood is always bounded by the score entropy (`likelihood`), whatever was.
    ``aux``: names of the diagnostics it returns beside the nats. ``masked_only``: needs a graph with a mask on which
    only masks move. ``graphs``: the graphs whose formula it is. ``normalised``: needs a readout whose scores are those
    of a normalised clean law. Rows that are not live get 0.
    """

    aux: ClassVar[tuple[str, ...]] = ()
    masked_only: ClassVar[bool] = False
    graphs: ClassVar[type[Graph]] = Graph
    normalised: ClassVar[bool] = False

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A graph or a readout that is not what this objective needs."""
        yield from super().misfits(node, root)
        readout: Any = root.under("process", "readout")
        if cls.masked_only:
            yield from needs_masks_only(node, root)
        yield from needs_graph(node, root, cls.graphs)
        if cls.normalised and readout is not None and not readout.part.normalised:
            known: dict[str, Any] = dict(Readout.registered)
            fitting = [name for name, one in sorted(known.items()) if one.normalised]
            yield Problem(
                node.path,
                f"objective {cls.type_name!r} needs a readout that normalises, and readout "
                f"{readout.part.type_name!r} does not. Readouts that fit: {', '.join(fitting) or 'none yet'}.",
            )

    def law_scale(self, graph: Graph, context: Context) -> Tensor | None:
        """c, [R], where the nats of a *normalised* law of the clean token are c · (−log p(x_0)); None elsewhere."""
        return None

    @abstractmethod
    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, aux_RK), differentiable in ``log_score_RS``."""

    def rows_and_grad(
        self, log_score_RS: Tensor, graph: Graph, context: Context
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(nats_R, aux_RK, d nats / d log_score); may reuse its input. Automatic unless overridden."""
        with torch.enable_grad():
            leaf = log_score_RS.detach().requires_grad_()
            nats, aux = self.rows(leaf, graph, context)
            (grad,) = torch.autograd.grad(nats.sum(), leaf)
        return nats.detach(), aux.detach(), grad


@Objective.register("score_entropy")
class ScoreEntropy(Objective):
    """Denoising score entropy (SEDD eq. 14), the integrand of SEDD's likelihood bound.

    Where only masks move it also reports the slack of the score sum, Z − 1 − ln Z with Z = (e^σ − 1) Σ_y s_y: the
    bound is (e^σ − 1)⁻¹ times cross-entropy of the normalised network plus this slack, which is 0 for calibrated
    scores.
    """

    aux = ("calibration",)

    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, calibration [R, 1])."""
        own = gather_own(log_score_RS.detach(), context["target"])
        nats = graph.score_entropy(log_score_RS, context["x"], context["target"], context["sigma"])
        return nats, self._slack(nats.detach(), own, graph, context)

    def rows_and_grad(
        self, log_score_RS: Tensor, graph: Graph, context: Context
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with the graph's closed-form gradient."""
        own = gather_own(log_score_RS, context["target"])
        nats, grad = graph.score_entropy_grad(log_score_RS, context["x"], context["target"], context["sigma"])
        return nats, self._slack(nats, own, graph, context), grad

    def law_scale(self, graph: Graph, context: Context) -> Tensor | None:
        """1/(e^σ − 1) on live rows, where only masks move: the slack of a normalised law is 0."""
        return mask_scale(graph, context)

    @staticmethod
    def _slack(nats_R: Tensor, log_score_own_R: Tensor, graph: Graph, context: Context) -> Tensor:
        """Z − 1 − ln Z without a second pass over the vocabulary: Σ s is read back from the nats.

        nats = Σ s − r log s_{x0} + r (log r − 1) with r = 1/(e^σ − 1), hence Z = nats/r + log s_{x0} − log r + 1.
        """
        if not graph.blind:
            return nats_R.new_zeros(nats_R.shape[0], 1)
        scale = torch.expm1(context["sigma"].to(nats_R.dtype))
        total = nats_R * scale + log_score_own_R + scale.log() + 1
        slack = (total - 1 - total.clamp_min(1e-30).log()).clamp_min(0)
        return torch.where(graph.live(context["x"]), slack, torch.zeros_like(slack)).unsqueeze(-1)


def mask_scale(graph: Graph, context: Context) -> Tensor | None:
    """1/(e^σ − 1) on live rows and 0 elsewhere, [R], on a graph where only masks move; None on others."""
    if not graph.blind:
        return None
    return (1.0 / torch.expm1(context["sigma"])).masked_fill(~graph.live(context["x"]), 0.0)


class DenoisingRows:
    """A diffusion objective as a row function of the fused kernel: readout, then objective."""

    def __init__(self, graph: Graph, readout: Readout, objective: Objective) -> None:
        """The three parts whose composition this is."""
        self.graph, self.readout, self.objective = graph, readout, objective

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, aux_RK)."""
        log_score = self.readout.log_score(out_RS, context["x"], context["sigma"])
        return self.objective.rows(log_score, self.graph, context)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """(nats_R, aux_RK, gradient in the outputs), in place where readout and objective allow it."""
        if self.readout.affine:
            log_score = self.readout.log_score(out_RS, context["x"], context["sigma"])
            nats, aux, grad = self.objective.rows_and_grad(log_score, self.graph, context)
            return nats, aux, grad.scatter_(-1, context["x"].unsqueeze(-1), 0.0)
        with torch.enable_grad():
            leaf = out_RS.detach().requires_grad_()
            log_score = self.readout.log_score(leaf, context["x"], context["sigma"])
        nats, aux, upstream = self.objective.rows_and_grad(log_score.detach().clone(), self.graph, context)
        (grad,) = torch.autograd.grad(log_score, leaf, upstream)
        return nats, aux, grad

    def plan(self, context: Context) -> Plan | None:
        """The same as numbers of rows, for a kernel of one or two passes; None where there is no such form."""
        x_R, target_R, sigma_R = context["x"], context["target"], context["sigma"]
        graph, vocab = self.graph, self.graph.vocab
        if self.readout.normalised:
            scale_R = self.objective.law_scale(graph, context)
            if scale_R is None:
                return None
            none_R0 = scale_R.new_zeros(len(scale_R), len(self.objective.aux))  # a law has no slack
            return SoftmaxPlan(target_R, scale_R, vocab, lambda nats_R: none_R0)
        shift_R = self.readout.shift(sigma_R) if self.readout.affine and type(self.objective) is ScoreEntropy else None
        found = None if shift_R is None else graph.entropy_rows(x_R, target_R, sigma_R)
        if shift_R is None or found is None:
            return None
        return ExpPlan(
            x_R, target_R, shift_R, found.scale_R, found.common_R, found.target_R, found.mask_R,
            mask=vocab if graph.mask else -1,
            nats=found.nats,
            aux=lambda nats_R, own_R: ScoreEntropy._slack(nats_R, own_R, graph, context),
        )  # fmt: skip


class NextTokenRows:
    """Cross-entropy of the next token as a row function: −log softmax(out)[target]."""

    def values(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, no diagnostics [R, 0])."""
        nats = out_RS.logsumexp(-1) - gather_own(out_RS, context["target"])
        return nats, nats.new_zeros(nats.shape[0], 0)

    def values_and_grad(self, out_RS: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The same and softmax − one-hot, in place: one pass for the maximum, one for exp, one to scale."""
        target = context["target"].unsqueeze(-1)
        own = out_RS.gather(-1, target)
        top = out_RS.amax(-1, keepdim=True)
        grad = out_RS.sub_(top).exp_()
        total = grad.sum(-1, keepdim=True)
        nats = (total.log() + top - own).squeeze(-1)
        grad.div_(total).scatter_add_(-1, target, torch.full_like(own, -1.0))
        return nats, nats.new_zeros(nats.shape[0], 0), grad

    def plan(self, context: Context) -> Plan:
        """Softmax rows of scale 1."""
        target_R = context["target"]
        ones_R = torch.ones(len(target_R), dtype=torch.float32, device=target_R.device)
        return SoftmaxPlan(target_R, ones_R, 0, lambda nats_R: nats_R.new_zeros(len(nats_R), 0))
