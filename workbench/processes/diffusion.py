"""Score-entropy discrete diffusion as a process: noise a batch, score it, bound its likelihood, show it to samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from graphs.base import Graph, Noise
from samplers.base import ScoreView, View
from workbench.core.rng import Rng
from workbench.kernels.rows import fused_rows, gather_features, padded_rows
from workbench.processes.base import BUCKETS, Bound, Continuation, Loss, Noised, Process
from workbench.processes.continuations import masked_continuation
from workbench.processes.corruptions import Corruption, Draw, Independent
from workbench.processes.estimators import Estimator, MonteCarlo
from workbench.processes.objectives import DenoisingRows, Objective, ScoreEntropy
from workbench.processes.readouts import Readout
from workbench.processes.time_draws import TimeDraw
from workbench.processes.views import DenoiserView, features

if TYPE_CHECKING:
    from backbones.base import Backbone
    from workbench.core.node import Node


@Process.register("diffusion")
class Diffusion(Process):
    """Discrete diffusion by scores (Lou, Meng & Ermon 2024).

    Training loss, nats per token: E over noise of weight · Σ over live rows of the objective / (B · L), for a drawn
    time weight(t) · dσ/dt. Positions that the corruption gives away cost nothing and count among the B · L.

    Settings:
        graph: the forward process on one position.
        noise: the schedule σ(t); the graph's usual one where left out.
        readout: what the network's outputs mean; the graph's usual one where left out.
        objective: nats of a row per unit of σ.
        times: which times are trained on.
        corruption: how noise is drawn for training: by positions at those times, by shares or by numbers of masks.
        estimator: how the likelihood of held-out text is estimated.
    """

    sees = frozenset({"all", "others"})
    offers: ClassVar[type[View]] = ScoreView
    usual: ClassVar[dict[str, object]] = {
        "objective": {"type": "score_entropy"},
        "times": {"type": "stratified"},
        "corruption": {"type": "independent"},
        "estimator": {"type": "monte_carlo"},
    }
    afterwards = frozenset({"estimator"})

    def __init__(
        self,
        vocab: int,
        length: int,
        graph: Graph,
        noise: Noise,
        readout: Readout,
        objective: Objective,
        times: TimeDraw,
        corruption: Corruption | None = None,
        estimator: Estimator | None = None,
    ) -> None:
        """``vocab`` tokens in blocks of ``length``; None stands for ``independent`` and ``monte_carlo``."""
        self.vocab, self.length = vocab, length
        self.graph, self.noise, self.readout = graph, noise, readout.on(graph)
        self.objective, self.times, self.corruption = objective, times, corruption or Independent()
        self.copies = self.corruption.copies
        self.estimator = estimator or MonteCarlo()
        self.loss_is_text = self.corruption.whole
        self.states = self.outputs = graph.states
        self.rows = DenoisingRows(graph, self.readout, objective)
        self.bound_rows = DenoisingRows(graph, self.readout, ScoreEntropy())

    def prepare(
        self, x0_BL: npt.NDArray[np.int64], seq_B: npt.NDArray[np.int64], step: int, rng: Rng
    ) -> Noised:
        """Draw noise; keep the live rows, padded to a few rows more with weight 0."""
        drawn = self.corruption.draw(seq_B, x0_BL.shape[1], step, rng, self.noise, self.times)
        return self.noised_by(x0_BL[drawn.item_N], drawn)

    def noised(
        self,
        x0_BL: npt.NDArray[np.int64],
        t_B: npt.NDArray[np.float64],
        weight_B: npt.NDArray[np.float64],
        u_BL: npt.NDArray[np.float64],
    ) -> Noised:
        """The batch at given times and uniform numbers, its rows weighted by ``weight`` · dσ/dt."""
        t, weight = torch.from_numpy(t_B), torch.from_numpy(weight_B) * self.noise.rate(torch.from_numpy(t_B))
        drawn = Draw(np.arange(len(x0_BL)), t, self.noise.total(t), weight, torch.from_numpy(u_BL))
        return self.noised_by(x0_BL, drawn)

    def noised_by(self, x0_BL: npt.NDArray[np.int64], drawn: Draw) -> Noised:
        """The batch at given noise and numbers, one sequence of ``x0_BL`` a sequence of the draw."""
        batch, length = x0_BL.shape
        x0, sigma_B = torch.from_numpy(np.ascontiguousarray(x0_BL)), drawn.sigma_N
        x_BL = self.graph.corrupt(x0, sigma_B.unsqueeze(-1), drawn.u_NL)
        live_BL = self.graph.live(x_BL)
        if drawn.given_NL is not None:
            x_BL, live_BL = torch.where(drawn.given_NL, x0, x_BL), live_BL & ~drawn.given_NL
        live = live_BL.reshape(-1).nonzero().squeeze(-1)
        padded = padded_rows(live.numel(), self.device)
        rows_R = torch.zeros(padded, dtype=torch.long)
        rows_R[: live.numel()] = live
        b_R = rows_R // length
        weight_R = drawn.weight_N[b_R].to(torch.float32)
        weight_R[live.numel() :] = 0.0
        bucket_B = (drawn.t_N * BUCKETS).long().clamp_(0, BUCKETS - 1)
        return Noised(
            x_BL=x_BL,
            sigma_B=(sigma_B if drawn.told_N is None else drawn.told_N).to(torch.float32),
            rows_R=rows_R,
            x_R=x_BL.reshape(-1)[rows_R],
            target_R=x0.reshape(-1)[rows_R],
            sigma_R=sigma_B.to(torch.float32)[b_R],
            weight_R=weight_R,
            bucket_R=bucket_B[b_R],
            tokens=batch * length,
            bucket_tokens=torch.bincount(bucket_B, minlength=BUCKETS) * length,
        )

    def loss(self, shell: nn.Module, noised: Noised) -> Loss:
        """Nats per token, with the bound and the score sum's slack per noise bucket."""
        return shell(self._loss, noised)

    def _loss(self, net: Backbone, noised: Noised) -> Loss:
        h_RD = gather_features(features(net, noised.x_BL, noised.sigma_B), noised.rows_R)
        context = {"x": noised.x_R, "target": noised.target_R, "sigma": noised.sigma_R}
        total, nats_R, aux_RK = fused_rows(
            net.head, h_RD, noised.weight_R, self.rows, context, self.chunk, over=noised.tokens
        )
        weight_R = noised.weight_R.to(nats_R.dtype)
        counted_R = (weight_R > 0).to(nats_R.dtype)
        logs = {"bound/bucket": bucketed(nats_R * weight_R, noised.bucket_R, noised.bucket_tokens)}
        if self.graph.blind:
            counts = torch.zeros(BUCKETS, dtype=nats_R.dtype, device=nats_R.device)
            counts.index_add_(0, noised.bucket_R, counted_R)
            for index, name in enumerate(self.objective.aux):
                logs[f"{name}/bucket"] = bucketed(aux_RK[:, index] * counted_R, noised.bucket_R, counts)
        return Loss(total, logs)

    def nll(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Bound:
        """An upper bound of −log p by ``draws`` draws a block, or what the estimator says."""
        return self.estimator.bound(self, shell, x0_BL, seq_B, rng, draws)

    def continuation(
        self,
        shell: nn.Module,
        x0_BL: npt.NDArray[np.int64],
        given: int,
        seq_B: npt.NDArray[np.int64],
        rng: Rng,
        draws: int,
    ) -> Continuation:
        """An upper bound by masks on the continuation alone; its guesses from one look at all of it masked."""
        return masked_continuation(self, shell, x0_BL, given, seq_B, rng, draws)

    @classmethod
    def says_unigram(cls, node: Node) -> bool:
        """As the readout says, on the graph."""
        graph, readout = node.settings["graph"].part, node.settings["readout"].part
        return bool(readout.says_unigram(graph))

    def unigram_bias(self, share_V: Tensor) -> Tensor | None:
        """As the readout says, 0 for a mask."""
        bias_V = self.readout.unigram_bias(share_V)
        return None if bias_V is None else torch.cat([bias_V, bias_V.new_zeros(self.outputs - len(bias_V))])

    def view(self, shell: nn.Module) -> View:
        """The network as a score."""
        return DenoiserView(shell, self.graph, self.noise, self.readout, self.length, self.states)


def bucketed(values_R: Tensor, bucket_R: Tensor, weight: Tensor) -> Tensor:
    """[BUCKETS, 2]: sums of ``values_R`` by bucket beside the buckets' weights."""
    sums = torch.zeros(BUCKETS, dtype=values_R.dtype, device=values_R.device)
    sums.index_add_(0, bucket_R, values_R)
    return torch.stack([sums, weight.to(sums)], dim=-1)
