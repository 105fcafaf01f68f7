"""A plug-in with a part of every kind that text, network, process, sampler, training and evaluation are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone, CachedMixer, Mixer, Sight
from backbones.conditioning import Conditioning
from backbones.embedding import Tokens, zero_head
from backbones.stack import MLP, Block, FinalNorm, LayerNorm, Stack
from graphs.base import Graph, Noise, gather_own
from graphs.dense import RateMatrix
from graphs.rates import generator
from samplers.base import Law, Look, Predictor, ScoreView, Shape, ShapeContext, Shaper, State
from samplers.predictors.laws import host_sigmas, shaped_clean
from workbench.core.bounds import Count, Fraction, NonNegative
from workbench.core.part import Maker
from workbench.data.base import Corpus, Split, Tokenizer
from workbench.data.corpora import part_of
from workbench.data.storage import fingerprint
from workbench.data.tokenizers import Bytes
from workbench.metrics.base import Evidence, Metric
from workbench.metrics.value import Value
from workbench.processes.objectives import Context, Objective
from workbench.processes.readouts import Readout
from workbench.train.schedules import Schedule, ramp


class _Scan(nn.Module):
    """s_l = a ⊙ s_{l−1} + u_l, one real decay a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.decay_D = nn.Parameter(torch.linspace(0.0, 4.0, dim))

    def forward(self, u_BLD: Tensor, state_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a_D = torch.sigmoid(self.decay_D.float())
        state_BD = u_BLD.new_zeros(u_BLD[:, 0].shape, dtype=torch.float32) if state_BD is None else state_BD
        out = []
        for u_BD in u_BLD.float().unbind(1):
            state_BD = a_D * state_BD + (1 - a_D) * u_BD
            out.append(state_BD)
        return torch.stack(out, 1).to(u_BLD.dtype), state_BD


@Mixer.register("promised_scan")
class LinearRecurrence(CachedMixer):
    """A gated diagonal linear recurrence; two of them, one each way, where it is not causal."""

    def __init__(self, dim: int, causal: bool) -> None:
        """Supplied: ``dim``, ``causal``."""
        super().__init__()
        self.dim, self.causal = dim, causal
        self.inner = nn.Linear(dim, 2 * dim)
        self.scans = nn.ModuleList(_Scan(dim) for _ in range(1 if causal else 2))
        self.outer = nn.Linear(dim, dim)

    def forward(self, h_BLD: Tensor, cache: Tensor | None = None) -> Tensor:
        """Mix along L."""
        return self._run(h_BLD, cache)[0]

    def new_cache(self, batch: int) -> Tensor:
        """The state, zero."""
        return self.inner.weight.new_zeros(batch, self.dim)

    def commit(self, h_BLD: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Mix, and the state after."""
        return self._run(h_BLD, cache)

    def _run(self, h_BLD: Tensor, state_BD: Tensor | None) -> tuple[Tensor, Tensor]:
        u_BLD, gate_BLD = self.inner(h_BLD).chunk(2, dim=-1)
        mixed_BLD, state_BD = self.scans[0](u_BLD, state_BD)
        if not self.causal:
            mixed_BLD = mixed_BLD + self.scans[1](u_BLD.flip(1))[0].flip(1)
        return self.outer(mixed_BLD * torch.sigmoid(gate_BLD)), state_BD

    def flops_per_token(self, length: int) -> float:
        """Linear maps and the scans."""
        return 6 * self.dim**2 + 4 * self.dim * len(self.scans)

    def state_bytes(self, length: int) -> int:
        """One state."""
        return 2 * self.dim


@Backbone.register("promised_net")
class SSM(Stack):
    """A residual stack of any mixer, by default a linear recurrence.

    Settings:
        mixer: what mixes along the sequence in each block.
        conditioning: how σ reaches the blocks.
        dim: width.
        depth: number of blocks.
        cond_dim: width of the vector that carries σ.
        causal: left-sighted, with a cache of states.
    """

    usual = {"mixer": {"type": "promised_scan"}, "conditioning": {"type": "adaln"}}

    def __init__(
        self,
        states: int,
        outputs: int,
        length: int,
        mixer: Maker[Mixer],
        conditioning: Conditioning,
        dim: Count = 256,
        depth: Count = 6,
        cond_dim: Count = 128,
        causal: bool = False,
    ) -> None:
        """Supplied: ``states``, ``outputs``, ``length``."""
        super().__init__()
        self.causal = causal
        self.embed = Tokens(states, dim)
        self.conditioning = conditioning.embedding(dim, cond_dim)
        self.blocks = nn.ModuleList(
            Block(
                mixer(dim=dim, length=length, causal=causal),
                MLP(dim),
                (LayerNorm(dim), LayerNorm(dim)),
                conditioning.modulation(dim, cond_dim, 6),
            )
            for _ in range(depth)
        )
        self.final = FinalNorm(LayerNorm(dim), conditioning.modulation(dim, cond_dim, 2))
        self.head = zero_head(dim, outputs)

    @classmethod
    def sight(cls, settings: Mapping[str, Any]) -> Sight:
        """Left when causal, else all."""
        return "left" if settings.get("causal", False) else "all"

    def no_decay(self) -> set[str]:
        """The decays of the recurrences."""
        return {name for name, _ in self.named_parameters() if name.endswith("decay_D")}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Two small blocks."""
        return {"dim": 16, "depth": 2, "cond_dim": 8}


@Graph.register("promised_ladder")
class Ladder(RateMatrix):
    """Tokens in a row by their number, reflecting ends."""

    def __init__(self, vocab: int) -> None:
        """All rates 1."""
        super().__init__(vocab, generator(np.eye(vocab, k=1) + np.eye(vocab, k=-1)))


@Predictor.register("promised_rule")
class ReMDMCap(Predictor):
    """A token is masked again with probability r = min(eta, (1 − a_s)/a_t), a = e^−σ; a mask is filled with
    (a_s − (1 − r) a_t)/(1 − a_t), so that the marginals stay those of the forward process.

    Settings:
        eta: cap on the share of remasking.
    """

    blind = True
    shapes = "clean"
    graphs = "mask"

    def __init__(self, eta: Fraction = 0.04) -> None:
        """Keep the cap."""
        self.eta = eta

    def law(self, stage: int, looks: Sequence[Look], state: State, view: ScoreView, shape: Shape | None) -> Law:
        """See the class."""
        rows_R = torch.nonzero(state.free_BL.reshape(-1)).squeeze(-1)
        masked_R = state.live_BL.reshape(-1)[rows_R]
        a_t_R, a_s_R = (torch.exp(-sigma_R) for sigma_R in host_sigmas(rows_R, state, view))
        again_R = ((1 - a_s_R) / a_t_R).clamp(max=self.eta)
        fill_R = ((a_s_R - (1 - again_R) * a_t_R) / (1 - a_t_R)).clamp(0, 1)
        to_R = torch.full_like(rows_R, view.graph.vocab).masked_fill(masked_R, -1)
        look = looks[stage]

        def target(subset: Tensor) -> Tensor:
            return shaped_clean(look, rows_R[subset].to(state.x_BL.device), state, shape)

        return Law(rows_R, torch.where(masked_R, fill_R, again_R), target, to_R=to_R, blind=True)


@Shaper.register("promised_shaper")
class Frequency(Shaper):
    """log p − strength · ln(1 + count of the token among the settled ones of its sequence), normalised.

    Settings:
        strength: of the penalty; 0 changes nothing.
    """

    def __init__(self, strength: NonNegative = 1.5) -> None:
        """Keep the strength."""
        self.strength = strength

    def __call__(self, log_p_RV: Tensor, context: ShapeContext) -> Tensor:
        """See the class."""
        x_BL, vocab = context.x_BL, log_p_RV.shape[-1]
        seen_BL = x_BL < vocab
        if context.settled_BL is not None:
            seen_BL = seen_BL & context.settled_BL.to(x_BL.device)
        count_BV = log_p_RV.new_zeros(x_BL.shape[0], vocab)
        count_BV.scatter_add_(1, x_BL.clamp_max(vocab - 1), seen_BL.to(count_BV.dtype))
        item_R = context.rows_R // x_BL.shape[1]
        return torch.log_softmax(log_p_RV - self.strength * torch.log1p(count_BV)[item_R], -1)


@Schedule.register("promised_pace")
class InverseSqrt(Schedule):
    """Linear warm-up, then √(warmup/step).

    Settings:
        warmup: updates of warm-up.
    """

    def __init__(self, warmup: Count = 100) -> None:
        """``warmup`` updates."""
        self.warmup = warmup

    def factor(self, step: int, steps: int) -> float:
        """See the class."""
        return min(ramp(step, self.warmup), (self.warmup / (step + 1)) ** 0.5)


@Readout.register("promised_law")
class Subs(Readout):
    """log s_y = log softmax(out over tokens)_y − log(e^σ − 1): a normalised law of the clean token as a score."""

    masked_only = True
    normalised = True

    def log_score(self, out_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Log-scores [R, S]."""
        sigma_R1 = sigma_R.to(out_RS.dtype).unsqueeze(-1)
        log_s_RV = out_RS[:, :-1].log_softmax(-1) - torch.expm1(sigma_R1).log()
        return F.pad(log_s_RV, (0, 1)).scatter(-1, x_R.unsqueeze(-1), 0.0)

    @classmethod
    def says_unigram(cls, graph: type[Graph]) -> bool:
        """Yes."""
        return True

    def unigram_bias(self, share_V: Tensor) -> Tensor:
        """log share."""
        return share_V.log()


@Objective.register("promised_loss")
class Denoising(Objective):
    """Cross-entropy of the clean token per unit of σ, −log p(x_0)/(e^σ − 1) (MDLM eq. 10), from a normalised score."""

    masked_only = True
    normalised = True

    def rows(self, log_score_RS: Tensor, graph: Graph, context: Context) -> tuple[Tensor, Tensor]:
        """(nats_R, nothing)."""
        scale_R = torch.expm1(context["sigma"].to(log_score_RS.dtype))
        nats_R = -(gather_own(log_score_RS, context["target"]) + scale_R.log()) / scale_R
        nats_R = nats_R.masked_fill(~graph.live(context["x"]), 0.0)
        return nats_R, nats_R.new_zeros(len(nats_R), 0)


@Noise.register("promised_noise")
class Linear(Noise):
    """σ grows as t does, from a little to 7."""

    def total(self, t: Tensor) -> Tensor:
        return 1e-3 + 7 * t

    def rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 7.0) + 0 * t

    def time_at(self, sigma: Tensor) -> Tensor:
        return (sigma - 1e-3) / 7


@Metric.register("promised_metric")
class Longest(Metric):
    """The largest id that was drawn."""

    needs = frozenset({"samples"})

    def __call__(self, evidence: Evidence) -> list[Value]:
        return [Value(self.type_name, float(evidence.samples.tokens_NL.max()))]


@Tokenizer.register("promised_letters")
class Letters(Bytes):
    """Bytes under another name."""

    file = "letters.json"


@Corpus.register("promised_text")
class Counting(Corpus):
    """Numbers in digits.

    Settings:
        size: how many documents.
    """

    def __init__(self, size: Count = 40) -> None:
        self.size = size

    def documents(self, split: Split, start: int = 0) -> Iterator[str]:
        for i in itertools.islice(part_of(range(self.size), split), start, None):
            yield " ".join(str(number) for number in range(100 * i, 100 * i + 100))

    def digest(self) -> str:
        return fingerprint({"corpus": "counting", "size": self.size})

    def count(self, split: Split) -> int:
        return sum(1 for _ in part_of(range(self.size), split))
