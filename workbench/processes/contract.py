"""What every readout, objective, draw of times, corruption, divergence and estimator must satisfy, plug-ins' too.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphs.absorbing import Absorbing
from graphs.base import Graph
from graphs.mixture import Mixture
from graphs.noise import LogLinear
from graphs.uniform import Uniform
from workbench.core.checks import run_checks
from workbench.core.rng import Rng
from workbench.processes.base import Bound, Shell
from workbench.processes.corruptions import Corruption
from workbench.processes.diffusion import Diffusion
from workbench.processes.divergences import Divergence
from workbench.processes.estimators import Estimator
from workbench.processes.objectives import Context, DenoisingRows, Objective, ScoreEntropy
from workbench.processes.readouts import Normalised, Plain, Readout
from workbench.processes.time_draws import TimeDraw, UniformTimes

VOCAB = 5
"""Tokens of the small graphs the checks build."""


def check_readout(part: type[Readout]) -> list[str]:
    """Problems of a readout, in words."""
    return run_checks(Readout, part, (_log_scores, _gradient, _unigram), {"vocab": VOCAB})


def check_objective(part: type[Objective]) -> list[str]:
    """Problems of an objective, in words."""
    return run_checks(Objective, part, (_nats, _own_gradient))


def check_time_draw(part: type[TimeDraw]) -> list[str]:
    """Problems of a draw of times, in words."""
    return run_checks(TimeDraw, part, (_unbiased, _by_sequence))


def check_corruption(part: type[Corruption]) -> list[str]:
    """Problems of a way to draw noise, in words."""
    return run_checks(Corruption, part, (_same_bound, _by_place))


def check_divergence(part: type[Divergence]) -> list[str]:
    """Problems of a divergence of laws, in words."""
    return run_checks(Divergence, part, (_apart,))


def check_estimator(part: type[Estimator]) -> list[str]:
    """Problems of an estimator of the likelihood, in words."""
    return run_checks(Estimator, part, (_no_more_than_one, _by_block))


def _graphs(part: Readout | Objective) -> list[Graph]:
    everywhere: list[Graph] = [Absorbing(VOCAB), Uniform(VOCAB), Mixture(VOCAB, 0.3)]
    graphs = everywhere[:1] if part.masked_only else everywhere
    return [graph for graph in graphs if not isinstance(part, Objective) or isinstance(graph, part.graphs)]


def _on_graphs(readout: Readout) -> list[tuple[Graph, Readout]]:
    return [(graph, readout.on(graph)) for graph in _graphs(readout)]


def _rows(graph: Graph) -> tuple[Tensor, Context]:
    """Outputs of eight rows in float64, and their context; a graph with a mask has masks among them, and tokens too."""
    out_RS = torch.randn(8, graph.states, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_R = torch.arange(8) % VOCAB
    if graph.mask:
        x_R[: 7 if graph.blind else 3] = VOCAB
    sigma_R = torch.linspace(0.05, 3.0, 8, dtype=torch.float64)
    return out_RS, {"x": x_R, "target": (torch.arange(8) + 2) % VOCAB, "sigma": sigma_R}


# --- readouts ---------------------------------------------------------------------------------------------------


def _log_scores(readout: Readout) -> Iterator[str]:
    """Finite, of the outputs' shape and type, 0 at the own entry; each row by itself."""
    for graph, bound in _on_graphs(readout):
        for dtype in (torch.float32, torch.float64):
            out_RS, context = _rows(graph)
            x_R, sigma_R = context["x"], context["sigma"].to(dtype)
            score_RS = bound.log_score(out_RS.to(dtype, copy=True), x_R, sigma_R)
            if score_RS.shape != out_RS.shape or score_RS.dtype != dtype or not bool(score_RS.isfinite().all()):
                yield f"{dtype} {list(out_RS.shape)} became {score_RS.dtype} {list(score_RS.shape)}, or is not finite"
                return
            if bool(score_RS.gather(-1, x_R.unsqueeze(-1)).any()):
                yield "the own entry is not 0"
            alone_RS = bound.log_score(out_RS[2:3].to(dtype, copy=True), x_R[2:3], sigma_R[2:3])
            if not torch.allclose(alone_RS, score_RS[2:3], rtol=1e-5, atol=1e-6):
                yield "a row alone is read otherwise than among others"


def _gradient(readout: Readout) -> Iterator[str]:
    """The gradient that training takes (by ``affine`` or automatically) is that of the loss."""
    for graph, bound in _on_graphs(readout):
        rows = DenoisingRows(graph, bound, ScoreEntropy())
        out_RS, context = _rows(graph)
        leaf = out_RS.clone().requires_grad_()
        nats_R, _ = rows.values(leaf, context)
        (due_RS,) = torch.autograd.grad(nats_R.sum(), leaf)
        got_R, _, grad_RS = rows.values_and_grad(out_RS.clone(), context)
        live_R = graph.live(context["x"])
        if not torch.allclose(got_R, nats_R.detach(), rtol=1e-9, atol=1e-9):
            yield "with and without a gradient the loss differs"
        if not torch.allclose(grad_RS[live_R], due_RS[live_R], rtol=1e-7, atol=1e-9):
            yield f"the gradient is wrong (affine: {readout.affine}: outputs plus a number a row, and nothing else?)"


def _unigram(readout: Readout) -> Iterator[str]:
    """Outputs that shall say a law say it, at every σ."""
    share_V = torch.arange(1, VOCAB + 1, dtype=torch.float64)
    share_V = share_V / share_V.sum()
    for graph, bound in _on_graphs(readout):
        bias_V = bound.unigram_bias(share_V)
        if (bias_V is not None) != bound.says_unigram(type(graph)):
            yield f"says_unigram is {bias_V is None} on {graph.type_name}, where unigram_bias is {bias_V}"
        if bias_V is None:
            continue
        _, context = _rows(graph)
        out_RS = torch.nn.functional.pad(bias_V, (0, graph.states - VOCAB)).expand(8, -1).clone()
        score_RS = bound.log_score(out_RS, context["x"], context["sigma"])
        clean_RV = graph.clean_from_score(score_RS, context["x"], context["sigma"])[graph.live(context["x"])].exp()
        if not torch.allclose(clean_RV, share_V.expand_as(clean_RV), atol=1e-8):
            yield "a network that gives out unigram_bias does not say that law of the clean token"


# --- objectives -------------------------------------------------------------------------------------------------


def _scores(objective: Objective, graph: Graph) -> tuple[Tensor, Context]:
    """Log-scores that this objective takes: any, or those of a normalised clean law."""
    out_RS, context = _rows(graph)
    if objective.normalised:
        out_RS = graph.score_from_clean(out_RS[:, :VOCAB].log_softmax(-1), context["x"], context["sigma"])
    return Plain().log_score(out_RS, context["x"], context["sigma"]), context


def _nats(objective: Objective) -> Iterator[str]:
    """Finite numbers a row and its diagnostics, nothing on rows that are not live, each row by itself."""
    for graph in _graphs(objective):
        score_RS, context = _scores(objective, graph)
        nats_R, aux_RK = objective.rows(score_RS.clone(), graph, context)
        if nats_R.shape != (8,) or aux_RK.shape != (8, len(objective.aux)) or not bool(nats_R.isfinite().all()):
            yield f"8 rows became {list(nats_R.shape)} nats and {list(aux_RK.shape)} of {objective.aux}, or not finite"
            return
        if bool(nats_R[~graph.live(context["x"])].any()):
            yield "a row that is not live has nats"
        one = {name: value[2:3] for name, value in context.items()}
        if not torch.allclose(objective.rows(score_RS[2:3].clone(), graph, one)[0], nats_R[2:3], rtol=1e-9):
            yield "a row alone has other nats than among others"


def _own_gradient(objective: Objective) -> Iterator[str]:
    """``rows_and_grad`` is the value and the gradient of ``rows``."""
    for graph in _graphs(objective):
        score_RS, context = _scores(objective, graph)
        due = Objective.rows_and_grad(objective, score_RS.clone(), graph, context)
        got = objective.rows_and_grad(score_RS.clone(), graph, context)
        own_R1 = context["x"].unsqueeze(-1)  # the own entry is a constant: its gradient is not read
        pairs = [(got[0], due[0]), (got[1], due[1]), (got[2].scatter(-1, own_R1, 0.0), due[2].scatter(-1, own_R1, 0.0))]
        if not all(torch.allclose(left, right, rtol=1e-8, atol=1e-9) for left, right in pairs):
            yield "rows_and_grad is not the value, diagnostics and gradient of rows"


# --- times ------------------------------------------------------------------------------------------------------


def _unbiased(times: TimeDraw) -> Iterator[str]:
    """t in [eps, 1], and E[weight · f(t)] = ∫ f over it, for f = 1, t and t²."""
    t, weight = (
        np.concatenate(pieces)
        for pieces in zip(*(times.draw(np.arange(1000), step, Rng(0)) for step in range(20)), strict=True)
    )
    if t.min() < times.eps or t.max() > 1 or not np.isfinite(weight).all():
        yield f"times outside [{times.eps}, 1], or weights that are no numbers"
    for power in range(3):
        found, due = float((weight * t**power).mean()), (1 - times.eps ** (power + 1)) / (power + 1)
        if abs(found - due) > 0.02:
            yield f"the weighted mean of t^{power} is {found:.4f}; its integral is {due:.4f}"


def _by_sequence(times: TimeDraw) -> Iterator[str]:
    """The same sequence gets the same time however the batch is cut."""
    whole = times.draw(np.arange(40, 56), 3, Rng(1))
    part = times.draw(np.arange(44, 50), 3, Rng(1))
    if not all(np.array_equal(left[4:10], right) for left, right in zip(whole, part, strict=True)):
        yield "a sequence's time depends on its batch"


# --- corruptions ------------------------------------------------------------------------------------------------


def _same_bound(corruption: Corruption) -> Iterator[str]:
    """The absorbing bound of a denoiser that costs 1, or the number of masks, at each mask: ∫ dλ/λ of both is known.

    Where positions are given, of the others: n of them make a block of n.
    """
    length, noise, times = 6, LogLinear(), UniformTimes()
    count, weight, free = [], [], []
    for step in range(40):
        drawn = corruption.draw(np.arange(500), length, step, Rng(0), noise, times)
        if len(drawn.u_NL) != corruption.copies * 500:
            yield f"500 sequences became {len(drawn.u_NL)}; `copies` says {corruption.copies} for each"
        if float(drawn.u_NL.min()) < 0 or float(drawn.u_NL.max()) >= 1 or not bool(drawn.weight_N.isfinite().all()):
            yield "numbers outside [0, 1), or weights that are no numbers"
            return
        moved_NL = drawn.u_NL < -torch.expm1(-drawn.sigma_N).unsqueeze(-1)
        free_NL = torch.ones_like(moved_NL) if drawn.given_NL is None else ~drawn.given_NL
        moved_NL &= free_NL
        free.append(free_NL.double().sum(-1))
        count.append(moved_NL.double().sum(-1))
        weight.append(drawn.weight_N / torch.expm1(drawn.sigma_N))
    count_N, weight_N, free_N = torch.cat(count), torch.cat(weight), torch.cat(free)
    for power, due in ((1, float(free_N.mean())), (2, float((free_N * (free_N + 1) / 2).mean()))):
        found = float((weight_N * count_N**power).mean())
        if abs(found - due) > 0.04 * due:
            yield f"Σ over masks of (masks)^{power - 1} is {found:.3f} in the mean; the bound has {due:.3f}"


def _by_place(corruption: Corruption) -> Iterator[str]:
    """The same sequence gets the same noise however the batch is cut."""
    noise, times = LogLinear(), UniformTimes()
    whole = corruption.draw(np.arange(40, 56), 5, 3, Rng(1), noise, times)
    part = corruption.draw(np.arange(44, 50), 5, 3, Rng(1), noise, times)
    kept = torch.from_numpy((whole.item_N >= 4) & (whole.item_N < 10))
    for name in ("t_N", "sigma_N", "weight_N", "u_NL", "given_NL", "told_N"):
        of_whole, of_part = getattr(whole, name), getattr(part, name)
        if (of_whole is None) != (of_part is None) or (of_part is not None and not of_whole[kept].equal(of_part)):
            yield f"a sequence's {name} depends on its batch"


# --- divergences ------------------------------------------------------------------------------------------------


def _apart(divergence: Divergence) -> Iterator[str]:
    """A finite number ≥ 0 a row, 0 where the laws are one and only there; each row by itself."""
    log_q_RV, log_p_RV = torch.randn(2, 6, VOCAB, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1)
    nats_R = divergence.rows(log_q_RV, log_p_RV)
    if nats_R.shape != (6,) or not bool((nats_R > 1e-6).all()) or not bool(nats_R.isfinite().all()):
        yield f"6 rows became {list(nats_R.shape)} numbers, or laws that differ are not told apart"
        return
    if bool(divergence.rows(log_p_RV, log_p_RV).abs().max() > 1e-12):
        yield "laws that are one are told apart"
    if not torch.allclose(divergence.rows(log_q_RV[2:3], log_p_RV[2:3]), nats_R[2:3], rtol=1e-9):
        yield "a row alone lies otherwise apart than among others"


# --- estimators -------------------------------------------------------------------------------------------------


class _Network(nn.Module):
    """Outputs [B, L, S] that depend on the whole text and on the noise; its head is the identity."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.head = nn.Linear(states, states, bias=False)
        nn.init.eye_(self.head.weight)
        self.register_buffer("says", torch.randn(states, 2, states, generator=torch.Generator().manual_seed(0)))

    def forward(self, x_BL: Tensor, sigma_B: Tensor) -> Tensor:
        others_BS = self.get_buffer("says")[x_BL, torch.arange(2)].sum(1)
        return (others_BS * (1 + 0.1 * sigma_B.cos().unsqueeze(-1))).unsqueeze(1) + self.get_buffer("says")[:2, 0]


def _estimated(estimator: Estimator, blocks: slice = slice(None)) -> Bound:
    """Of all blocks of two tokens (or some of them), by 64 draws; ids of sequences are their numbers."""
    graph = Absorbing(VOCAB)
    process = Diffusion(
        VOCAB, 2, graph, LogLinear(), Normalised(), ScoreEntropy(), UniformTimes(), estimator=estimator
    )
    x0_BL = np.stack(np.divmod(np.arange(VOCAB**2), VOCAB), -1)[blocks]
    seq_B = np.arange(VOCAB**2)[blocks]
    return process.nll(Shell(_Network(graph.states)).eval(), x0_BL, seq_B, Rng(0), 64)


def _no_more_than_one(estimator: Estimator) -> Iterator[str]:
    """Nats of the shape they should have, whose terms add up; all blocks together have no more than probability 1."""
    bound = _estimated(estimator)
    nats_B = bound.nats_BK.mean(1)
    if len(nats_B) != VOCAB**2 or not np.isfinite(bound.nats_BK).all():
        yield f"nats are {list(bound.nats_BK.shape)}, not [{VOCAB**2}, draws], or not finite"
        return
    if bound.parts and np.abs(sum(bound.parts.values()) - nats_B).max() > 1e-6:
        yield f"the terms {', '.join(bound.parts)} do not add up to the nats"
    total = float(np.exp(-nats_B).sum())
    if total > 1.02 or (bound.kind == "exact" and total < 0.999):
        yield f"says {bound.kind}, but all blocks together have probability {total:.4f}"


def _by_block(estimator: Estimator) -> Iterator[str]:
    """A block gets the same draws however the batch is cut."""
    if np.abs(_estimated(estimator).nats_BK[3:9] - _estimated(estimator, slice(3, 9)).nats_BK).max() > 1e-5:
        yield "a block's nats depend on its batch"


CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "readout": check_readout,
    "objective": check_objective,
    "time_draw": check_time_draw,
    "corruption": check_corruption,
    "divergence": check_divergence,
    "estimator": check_estimator,
}
"""Kind → contract check."""
