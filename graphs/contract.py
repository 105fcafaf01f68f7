"""What every graph and every noise schedule must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the
contract is met. A part is built at ``VOCAB`` tokens from its default settings and those of its ``example()``, as a
recipe would where it is registered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from graphs.base import Graph, Noise
from graphs.contract_noise import NOISE
from workbench.core.errors import WorkbenchError
from workbench.core.part import Part, wanted
from workbench.core.spec import build, resolve

VOCAB = 5
"""Tokens of the small graphs the checks build."""
COARSE = 16
"""Steps of a coarse walk over the usual noise: what a step of it may magnify, rounding must survive."""
TOLD = 1e7
"""How much an inverse kernel may magnify errors and still be held to the digit."""
LEVELS = (1e-4, 0.05, 0.7, 3.0)
"""Total noises the checks look at."""


def check_graph(part: type[Graph]) -> list[str]:
    """Problems of a graph, in words."""
    return _run(lambda: _built(Graph, part), _GRAPH)


def check_noise(part: type[Noise]) -> list[str]:
    """Problems of a noise schedule, in words."""
    return _run(lambda: _built(Noise, part), NOISE)


def _built(kind: type[Part], part: type[Any]) -> Any:
    supplied = {"vocab": VOCAB}
    if part.registered.get(part.type_name) is not part:  # no recipe can name it
        return part(**{name: supplied[name] for name in wanted(part) if name in supplied}, **part.example())
    node, problems = resolve(kind, {"type": part.type_name, **part.example()})
    if node is None or problems:
        raise WorkbenchError("; ".join(map(str, problems)))
    return build(node, supplied)


def _run(build: Callable[[], object], checks: tuple[Callable[..., Iterator[str]], ...]) -> list[str]:
    """All problems; a check that raises is one problem, and the others still run."""
    try:
        made = build()
    except Exception as error:
        return [f"cannot be built from its example settings: {type(error).__name__}: {error}"]
    problems = []
    for check in checks:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            problems += [f"{name}: {problem}" for problem in check(made)]
        except Exception as error:
            problems.append(f"{name}: raises {type(error).__name__}: {error}")
    return problems


# --- graphs -------------------------------------------------------------------------------------------------


def _kernel(graph: Graph, low: float, high: float) -> Tensor:
    """[S, S]: entry [x, y] = P(x at ``high`` | y at ``low``), out of ``kernel_into``."""
    x_R = torch.arange(graph.states)
    level_R = torch.ones(graph.states, dtype=torch.float64)
    return graph.kernel_into(x_R, low * level_R, high * level_R)


def _pairs(graph: Graph, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x, x0, σ) of all pairs that can occur at σ."""
    x_R = torch.arange(graph.states).repeat_interleave(graph.vocab)
    x0_R = torch.arange(graph.vocab).repeat(graph.states)
    sigma_R = torch.full(x_R.shape, sigma, dtype=torch.float64)
    possible = _kernel(graph, 0.0, sigma)[x_R, x0_R] > 0
    return x_R[possible], x0_R[possible], sigma_R[possible]


def _apart(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def _shape_of_the_world(graph: Graph) -> Iterator[str]:
    if graph.states != graph.vocab + int(graph.mask):
        yield f"{graph.states} states, but {graph.vocab} tokens and mask {graph.mask}"
    for needed in ("noise", "readout"):
        if "type" not in graph.usual.get(needed, {}):
            yield f"`usual` names no {needed}"
    x = torch.arange(graph.states).reshape(1, -1)
    live = graph.live(x)
    if live.dtype != torch.bool or live.shape != x.shape:
        yield f"live is {live.dtype} {tuple(live.shape)}, not bool {tuple(x.shape)}"
    drawn = graph.prior(torch.linspace(0, 1 - 1e-12, 40, dtype=torch.float64).reshape(4, 10))
    if drawn.dtype != torch.long or drawn.shape != (4, 10):
        yield f"prior is {drawn.dtype} {tuple(drawn.shape)}, not int64 (4, 10)"
    if drawn.min() < 0 or drawn.max() >= graph.states:
        yield "prior leaves the states"
    if not bool(graph.live(drawn).any()):
        yield "the end law has no live position, so that no walk could start"


def _kernels(graph: Graph) -> Iterator[str]:
    for low, high in zip((0.0, *LEVELS), LEVELS, strict=False):
        K = _kernel(graph, low, high)
        if float(K.min()) < -1e-12 or _apart(K.sum(0), torch.ones(graph.states)) > 1e-10:
            yield f"from {low:g} to {high:g} the columns are no laws (sums {K.sum(0).tolist()})"
        middle = 0.5 * (low + high)
        if _apart(_kernel(graph, middle, high) @ _kernel(graph, low, middle), K) > 1e-10:
            yield f"from {low:g} by {middle:g} to {high:g} is not from {low:g} to {high:g}"
        if _apart(_kernel(graph, low, low), torch.eye(graph.states)) > 1e-12:
            yield f"from {low:g} to itself is not the identity"


def _rates(graph: Graph) -> Iterator[str]:
    x_R = torch.arange(graph.states)
    for sigma in LEVELS:
        Q = graph.rate_into(x_R, torch.full(x_R.shape, sigma, dtype=torch.float64))
        step = 1e-6
        slope = (_kernel(graph, sigma, sigma + step) - torch.eye(graph.states)) / step
        if _apart(Q, slope) > 1e-4 * (1 + float(Q.abs().max()) ** 2):
            yield f"at {sigma:g} rate_into is not the derivative of kernel_into"
        if float(Q.sum(0).abs().max()) > 1e-10:
            yield f"at {sigma:g} the columns of Q do not sum to zero"


def _push(graph: Graph) -> Iterator[str]:
    law_RS = torch.linspace(1, 2, 3 * graph.states, dtype=torch.float64).reshape(3, -1)
    ones = torch.ones(3, dtype=torch.float64)
    for low, high in ((0.0, 0.7), (0.3, 0.3), (0.2, 2.0)):
        pushed = graph.push(law_RS, low * ones, high * ones)
        K = _kernel(graph, low, high)
        if _apart(pushed, law_RS @ K.T) > 1e-10:
            yield f"from {low:g} to {high:g} is not what kernel_into says"
        back = graph.push(pushed, high * ones, low * ones)
        growth = float(torch.linalg.cond(K))
        if growth < TOLD and _apart(back, law_RS) > 1e-9 + 1e-13 * growth:
            yield f"back from {high:g} to {low:g} is not the inverse"
        if not bool(back.isfinite().all()) or _apart(back.sum(-1), law_RS.sum(-1)) > 1e-6:
            yield f"back from {high:g} to {low:g} does not keep sums"


def _corrupt(graph: Graph) -> Iterator[str]:
    count = 20_000
    u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).expand(graph.vocab, -1)
    x0 = torch.arange(graph.vocab).unsqueeze(-1).expand(-1, count)
    for sigma in LEVELS:
        x = graph.corrupt(x0, torch.full((graph.vocab,), sigma, dtype=torch.float64), u)
        if x.dtype != torch.long or x.shape != x0.shape:
            yield f"gives {x.dtype} {tuple(x.shape)}, not int64 {tuple(x0.shape)}"
            return
        shares = torch.stack([torch.bincount(row, minlength=graph.states) for row in x]) / count
        if _apart(shares.double(), _kernel(graph, 0.0, sigma).T[: graph.vocab]) > 4 / count:
            yield f"at {sigma:g} the states over an even grid of u do not come in the kernel's shares"
    if not torch.equal(graph.corrupt(x0, torch.zeros(1, dtype=torch.float64), u), x0):
        yield "at noise 0 it changes tokens"


def _prior_kl(graph: Graph) -> Iterator[str]:
    x0 = torch.arange(graph.vocab).unsqueeze(-1).expand(-1, len(LEVELS))
    kl = graph.prior_kl(x0, torch.tensor(LEVELS, dtype=torch.float64).expand(graph.vocab, -1))
    if kl.shape != x0.shape or not bool((kl >= 0).all()) or not bool((kl.diff(dim=-1) <= 1e-12).all()):
        yield f"is not a non-negative number per token that falls with the noise: {kl.tolist()}"


def _score_entropy(graph: Graph) -> Iterator[str]:
    for sigma in LEVELS:
        x_R, x0_R, sigma_R = _pairs(graph, sigma)
        log_r_RS = graph.log_ratio(x_R, x0_R, sigma_R)
        noise_RS = torch.sin(torch.arange(log_r_RS.numel(), dtype=torch.float64)).reshape(log_r_RS.shape)
        log_s_RS = torch.where(log_r_RS.isfinite(), log_r_RS, -20.0) + 0.5 * noise_RS
        nats_R = graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R)
        truth_R = _generic(graph, log_s_RS, log_r_RS, x_R, sigma_R)
        if bool(((nats_R - truth_R).abs() > 1e-9 * (1 + truth_R.abs()) / min(sigma, 1.0)).any()):
            yield f"at {sigma:g} it is not the sum of its definition"
        if bool((nats_R < -1e-9).any()) or bool((nats_R[~graph.live(x_R)] != 0).any()):
            yield f"at {sigma:g} it is negative, or not 0 on a row that is not live"
        other_RS = log_s_RS.scatter(-1, x_R.unsqueeze(-1), 3.0)
        if not torch.equal(graph.score_entropy(other_RS, x_R, x0_R, sigma_R), nats_R):
            yield f"at {sigma:g} it reads the own entry"
        plain_R, plain_RS = Graph.score_entropy_grad(graph, log_s_RS.clone(), x_R, x0_R, sigma_R)
        quick_R, quick_RS = graph.score_entropy_grad(log_s_RS.clone(), x_R, x0_R, sigma_R)
        scale = 1 + float(plain_RS.abs().max())
        if _apart(plain_R, quick_R) > 1e-9 * scale or _apart(plain_RS, quick_RS) > 1e-9 * scale:
            yield f"at {sigma:g} score_entropy_grad is not its value and gradient"


def _generic(graph: Graph, log_s_RS: Tensor, log_r_RS: Tensor, x_R: Tensor, sigma_R: Tensor) -> Tensor:
    """Σ_{y≠x} Q(x, y) [s_y − r_y log s_y + r_y (log r_y − 1)]."""
    terms_RS = log_s_RS.exp() + torch.where(log_r_RS.isfinite(), log_r_RS.exp() * (log_r_RS - 1 - log_s_RS), 0.0)
    rates_RS = graph.rate_into(x_R, sigma_R).scatter(-1, x_R.unsqueeze(-1), 0.0)
    return torch.where(rates_RS > 0, rates_RS * terms_RS, 0.0).sum(-1)


def _reverse_laws(graph: Graph) -> Iterator[str]:
    clean_V = torch.linspace(1, 3, graph.vocab, dtype=torch.float64)
    clean_V = clean_V / clean_V.sum()
    clean_S = torch.cat([clean_V, torch.zeros(graph.states - graph.vocab, dtype=torch.float64)])
    for low, high in ((0.0, 0.7), (0.2, 0.7), (0.7, 0.7)):
        law_S = _kernel(graph, 0.0, high) @ clean_S
        x_R = torch.arange(graph.states)[law_S > 0]
        t_R = torch.full(x_R.shape, high, dtype=torch.float64)
        bayes_RS = _kernel(graph, low, high)[x_R] * (_kernel(graph, 0.0, low) @ clean_S)
        bayes_RS = bayes_RS / bayes_RS.sum(-1, keepdim=True)
        log_s_RS = (law_S / law_S[x_R].unsqueeze(-1)).log()
        log_clean_RV = clean_V.log().expand(len(x_R), -1)
        s_R = torch.full(x_R.shape, low, dtype=torch.float64)
        if _apart(graph.reverse_from_clean(log_clean_RV, x_R, t_R, s_R), bayes_RS) > 1e-9:
            yield f"from {high:g} to {low:g} reverse_from_clean is not Bayes' law"
        if _apart(graph.reverse_from_score(log_s_RS, x_R, t_R, s_R), bayes_RS) > 1e-9:
            yield f"from {high:g} to {low:g} reverse_from_score is not Bayes' law at the exact score"
        live = graph.live(x_R)
        found_RV = graph.clean_from_score(log_s_RS, x_R, t_R).exp()
        if _apart(found_RV[live], clean_V.expand(int(live.sum()), -1)) > 1e-9:
            yield f"at {high:g} clean_from_score does not find the clean law"
        stay = bayes_RS.gather(-1, x_R.unsqueeze(-1)).squeeze(-1)
        if bool((stay[~live] < 1 - 1e-12).any()):
            yield f"from {high:g} to {low:g} a row that is not live may move"


def _coarse_steps(graph: Graph) -> Iterator[str]:
    """The steps of a coarse walk at the exact score: a fast chain forgets in one of them what rounding still knows."""
    node, problems = resolve(Noise, graph.usual["noise"])
    if node is None or problems:
        return  # `usual` is told elsewhere
    noise: Noise = build(node)
    clean_V = torch.linspace(1, 3, graph.vocab, dtype=torch.float64)
    clean_S = torch.cat([clean_V / clean_V.sum(), torch.zeros(graph.states - graph.vocab, dtype=torch.float64)])
    levels = noise.total(torch.linspace(0, 1, COARSE + 1, dtype=torch.float64)).tolist()
    for low, high in itertools.pairwise(levels):
        law_S = _kernel(graph, 0.0, high) @ clean_S
        x_R = torch.arange(graph.states)[law_S > 0]
        bayes_RS = _kernel(graph, low, high)[x_R] * (_kernel(graph, 0.0, low) @ clean_S)
        bayes_RS = bayes_RS / bayes_RS.sum(-1, keepdim=True)
        log_s_RS = (law_S / law_S[x_R].unsqueeze(-1)).log()
        t_R, s_R = (torch.full(x_R.shape, level, dtype=torch.float64) for level in (high, low))
        found_RS = graph.reverse_from_score(log_s_RS, x_R, t_R, s_R)
        if not bool(found_RS.isfinite().all()) or _apart(found_RS, bayes_RS) > 1e-4:
            yield f"from {high:g} to {low:g}, a step of {COARSE}, rounding makes reverse_from_score no law"


def _blindness(graph: Graph) -> Iterator[str]:
    t_R = torch.tensor([0.7, 0.7, 3.0], dtype=torch.float64)
    s_R = torch.tensor([0.7, 0.0, 0.2], dtype=torch.float64)
    if not graph.blind:
        try:
            graph.leave(t_R, s_R)
        except NotImplementedError:
            return
        yield "it has a pace of its own (leave), but does not say `blind`"
        return
    leave_R = graph.leave(t_R, s_R)
    if _apart(leave_R[:2], torch.tensor([0.0, 1.0]).double()) > 1e-12:
        yield f"nobody leaves in no time and everybody by noise 0, but leave is {leave_R[:2].tolist()}"
    clean_RV = torch.full((1, graph.vocab), 1.0 / graph.vocab, dtype=torch.float64).log()
    x_R = graph.prior(torch.zeros(1, dtype=torch.float64))
    law_RS = graph.reverse_from_clean(clean_RV, x_R, t_R[2:], s_R[2:])
    moved_R = 1 - law_RS.gather(-1, x_R.unsqueeze(-1)).squeeze(-1)
    if _apart(moved_R, leave_R[2:]) > 1e-12:
        yield f"leave says {leave_R[2:].tolist()}, reverse_from_clean {moved_R.tolist()}"


def _single_precision(graph: Graph) -> Iterator[str]:
    x_R, x0_R, sigma_R = _pairs(graph, 0.7)
    sigma_R = sigma_R.float()
    zero_R = torch.zeros_like(sigma_R)
    log_s_RS = torch.zeros(len(x_R), graph.states)
    clean_RV = torch.zeros(len(x_R), graph.vocab).log_softmax(-1)
    for name, got in (
        ("rate_into", graph.rate_into(x_R, sigma_R)),
        ("kernel_into", graph.kernel_into(x_R, zero_R, sigma_R)),
        ("push", graph.push(log_s_RS.exp(), zero_R, sigma_R)),
        ("score_entropy", graph.score_entropy(log_s_RS, x_R, x0_R, sigma_R)),
        ("clean_from_score", graph.clean_from_score(log_s_RS, x_R, sigma_R)),
        ("reverse_from_score", graph.reverse_from_score(log_s_RS, x_R, sigma_R, zero_R)),
        ("reverse_from_clean", graph.reverse_from_clean(clean_RV, x_R, sigma_R, zero_R)),
    ):
        if got.dtype != torch.float32:
            yield f"{name} of float32 is {got.dtype}"
        if bool(got.isnan().any()):
            yield f"{name} of float32 has nan"


_GRAPH = (
    _shape_of_the_world, _kernels, _rates, _push, _corrupt, _prior_kl, _score_entropy, _reverse_laws,
    _coarse_steps, _blindness, _single_precision,
)  # fmt: skip

CHECKS: dict[str, Callable[..., list[str]]] = {"graph": check_graph, "noise": check_noise}
"""Kind → contract check."""
