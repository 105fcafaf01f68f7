"""Targets: independent Zipf tokens at a real vocabulary, a Markov chain, a small joint law, the same after a prefix."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphs.base import Graph, Noise
from samplers.base import Canvas, ScoreView
from samplers.chain import ChainView
from samplers.draw import land
from samplers.exact import ExactView, IidView, zipf
from workbench.audit.base import Target, distance, text_entropy
from workbench.core.bounds import Count, Natural, Positive
from workbench.core.rng import Rng

RARE = 20_000
"""Tokens of a higher rank than this are called rare."""
BINS = 40
"""Stretches of ranks with equal mass, over which a wide law's total variation is taken."""


@Target.register("zipf")
class Zipf(Target):
    """Independent positions with a law like that of words, 1/(rank + 2.7)^1.07: shows what becomes of rare tokens.

    Settings:
        vocab: tokens; GPT-2 has 50,257
        length: positions of a text
        texts: texts drawn
    """

    def __init__(self, vocab: Count = 50_257, length: Count = 256, texts: Count = 4) -> None:
        """Make the law, and stretches of ranks of about equal mass."""
        self.vocab, self.length, self.texts = vocab, length, texts
        self.p_V = zipf(vocab)
        self.bin_V = (self.p_V.cumsum(0) * BINS).long().clamp_max(BINS - 1)
        self.due_N = torch.zeros(BINS, dtype=torch.float64).index_add_(0, self.bin_V, self.p_V)

    def view(self, graph: Graph, noise: Noise) -> ScoreView:
        """See the base."""
        return IidView(graph, noise, self.p_V, self.length)

    def exact(self, rng: Rng, set_number: int) -> Tensor:
        """By inverse CDF."""
        u_BL = torch.from_numpy(rng.uniform("exact", set_number, range(self.texts), self.length))
        cdf_V = self.p_V.cumsum(0)
        return torch.searchsorted(cdf_V, u_BL * cdf_V[-1], right=True).clamp_max(self.vocab - 1)

    def figures(self, tokens_BL: Tensor) -> Mapping[str, float]:
        """Nats a token, mass of rare tokens, total variation over stretches of ranks, entropy of a text."""
        return {
            "nats": float(-self.p_V[tokens_BL].log().mean()),
            "rare": float((tokens_BL >= RARE).double().mean()),
            "tv": distance(torch.bincount(self.bin_V[tokens_BL].reshape(-1), minlength=BINS), self.due_N),
            "text_entropy": text_entropy(tokens_BL, self.vocab),
        }

    def truths(self) -> Mapping[str, float]:
        """The law's entropy and its tail."""
        return {"nats": float(-(self.p_V * self.p_V.log()).sum()), "rare": float(self.p_V[RARE:].sum())}


@Target.register("markov")
class Markov(Target):
    """A random Markov chain, started from its stationary law: dependence between neighbours, at any length.

    Settings:
        vocab: tokens
        length: positions of a text
        texts: texts drawn
        concentration: below 1 few tokens may follow each one, above 1 all may
        seed: of the chain
    """

    def __init__(
        self,
        vocab: Count = 12,
        length: Count = 24,
        texts: Count = 400,
        concentration: Positive = 0.3,
        seed: Natural = 0,
    ) -> None:
        """Draw the chain."""
        self.vocab, self.length, self.texts = vocab, length, texts
        weight_VV = _gamma(f"chain/{concentration}", seed, vocab * vocab, concentration).reshape(vocab, vocab)
        self.step_VV = weight_VV / weight_VV.sum(-1, keepdim=True)
        self.start_V = torch.linalg.matrix_power(self.step_VV, 4096)[0]
        self.pairs_N = (self.start_V.unsqueeze(-1) * self.step_VV).reshape(-1)

    def view(self, graph: Graph, noise: Noise) -> ScoreView:
        """See the base."""
        return ChainView(graph, noise, self.start_V, self.step_VV, self.length)

    def exact(self, rng: Rng, set_number: int) -> Tensor:
        """Left to right."""
        u_BL = torch.from_numpy(rng.uniform("exact", set_number, range(self.texts), self.length))
        tokens = [land(self.start_V.log().expand(self.texts, -1), u_BL[:, 0])[0]]
        for at in range(1, self.length):
            tokens.append(land(self.step_VV[tokens[-1]].log(), u_BL[:, at])[0])
        return torch.stack(tokens, -1)

    def figures(self, tokens_BL: Tensor) -> Mapping[str, float]:
        """Nats a token by the chain, total variation of pairs of neighbours, entropy of a text."""
        pair_BM = tokens_BL[:, :-1] * self.vocab + tokens_BL[:, 1:]
        nats_B = -self.start_V[tokens_BL[:, 0]].log() - self.pairs_given(tokens_BL).log().sum(-1)
        return {
            "nats": float(nats_B.mean()) / self.length,
            "tv": distance(torch.bincount(pair_BM.reshape(-1), minlength=self.vocab**2), self.pairs_N),
            "text_entropy": text_entropy(tokens_BL, self.vocab),
        }

    def pairs_given(self, tokens_BL: Tensor) -> Tensor:
        """P(token | the one before), [B, L − 1]."""
        return self.step_VV[tokens_BL[:, :-1], tokens_BL[:, 1:]]

    def truths(self) -> Mapping[str, float]:
        """The chain's entropy a token."""
        first = float(-(self.start_V * self.start_V.log()).sum())
        rate = float(-(self.pairs_N * self.step_VV.reshape(-1).log()).sum())
        return {"nats": (first + (self.length - 1) * rate) / self.length}


@Target.register("joint")
class Joint(Target):
    """A random law over all texts of a few positions, far from independent: the whole law can be compared.

    Settings:
        vocab: tokens
        length: positions of a text
        texts: texts drawn
        given: so many first tokens are given (all of them token 0), and the rest is compared with its conditional law
        concentration: below 1 few texts hold most of the mass
        seed: of the law
    """

    def __init__(
        self,
        vocab: Count = 3,
        length: Count = 4,
        texts: Count = 4000,
        given: Natural = 0,
        concentration: Positive = 0.2,
        seed: Natural = 0,
    ) -> None:
        """Draw the law."""
        self.vocab, self.length, self.texts, self.given = vocab, length, texts, min(given, length - 1)
        weight_N = _gamma(f"joint/{concentration}", seed, vocab**length, concentration) + 1e-4
        self.joint = (weight_N / weight_N.sum()).reshape((vocab,) * length)
        law = torch.zeros_like(self.joint)
        law[(0,) * self.given] = self.joint[(0,) * self.given]
        self.law_N = (law / law.sum()).reshape(-1)

    def view(self, graph: Graph, noise: Noise) -> ScoreView:
        """See the base."""
        return ExactView(graph, noise, self.joint)

    def canvas(self) -> Canvas:
        """Blank, or with its first tokens given."""
        canvas = super().canvas()
        canvas.fixed_BL[:, : self.given] = True
        return canvas

    def exact(self, rng: Rng, set_number: int) -> Tensor:
        """By inverse CDF over all texts."""
        u_B = torch.from_numpy(rng.uniform("exact", set_number, range(self.texts), 1)[:, 0])
        place_B = land(self.law_N.log().expand(self.texts, -1), u_B)[0]
        return torch.stack(torch.unravel_index(place_B, self.joint.shape), -1)

    def figures(self, tokens_BL: Tensor) -> Mapping[str, float]:
        """Nats a text by the law, total variation of the whole law."""
        place_B = (tokens_BL * self.vocab ** torch.arange(self.length - 1, -1, -1)).sum(-1)
        seen_N = torch.bincount(place_B, minlength=self.law_N.numel())
        return {"nats": float(-self.law_N[place_B].log().mean()), "tv": distance(seen_N, self.law_N)}

    def truths(self) -> Mapping[str, float]:
        """The law's entropy."""
        return {"nats": float(-torch.xlogy(self.law_N, self.law_N).sum())}


def _gamma(stream: str, seed: int, n: int, concentration: float) -> Tensor:
    """``n`` positive weights, spiky where ``concentration`` is small; keyed, the same on every machine."""
    u_N = torch.from_numpy(Rng(seed).uniform(stream, 0, [0], n)[0])
    # a power of an exponential number is not a gamma one, and as good for a law at random
    return (-torch.log1p(-u_N)).clamp_min(1e-9) ** (1 / min(concentration, 1.0)) + 1e-4
