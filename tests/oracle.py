"""The truth on small worlds, in numpy float64 only: what graphs, processes and samplers are held against.

Independent of the package: nothing here imports it, nothing is a closed form of one graph. Every quantity is
made from a dense rate matrix ``Q`` [S, S] (``Q[y, x]`` the rate x → y, columns sum to zero, dp/dσ = Q p) and
a joint clean law ``p0`` over S^L. A joint law is an array of shape ``(S,) * L``; flat state n of ``states(S,
L)`` is its n-th entry in C order. On masked graphs S = V + 1 and the mask is the last state; ``embed`` pads a
law over V^L.

    Q = absorbing(4)                                # S = 5
    p0 = embed(random_joint(4, 2, seed=1), 5)       # (5, 5), no mass on the mask
    pt = noised(p0, Q, sigma=0.7)                   # law of x_σ
    s = scores(pt)                                  # [25, 2, 5]: s[n, l, y] = p(x_n with l := y) / p(x_n)
    r = reverse_marginals(p0, Q, 0.7, 0.3)          # [25, 2, 5]: P(x_s^l = y | x_t = x_n)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm, null_space

Array = npt.NDArray[np.float64]


# --- rate matrices ------------------------------------------------------------------------------------------


def absorbing(vocab: int) -> Array:
    """Every token falls into the mask (state ``vocab``) at rate 1; S = vocab + 1."""
    rates = np.zeros((vocab + 1, vocab + 1))
    rates[vocab, :vocab] = 1.0
    return with_diagonal(rates)


def uniform(size: int) -> Array:
    """Every state to every other at rate 1/S: Q = 11ᵀ/S − I."""
    return np.full((size, size), 1.0 / size) - np.eye(size)


def ring(size: int, forward: float = 1.0, backward: float = 0.5) -> Array:
    """x → x + 1 at rate ``forward``, x → x − 1 at ``backward`` (mod S): not reversible where they differ."""
    rates = np.zeros((size, size))
    for x in range(size):
        rates[(x + 1) % size, x] += forward
        rates[(x - 1) % size, x] += backward
    return with_diagonal(rates)


def random(size: int, seed: int = 0) -> Array:
    """Positive random rates without any symmetry; mean rate out of a state about 1."""
    rates = np.random.default_rng(seed).gamma(1.0, 1.0 / max(size - 1, 1), (size, size))
    return with_diagonal(rates)


def with_diagonal(rates: Array) -> Array:
    """``rates`` with the diagonal that makes columns sum to zero."""
    out = np.array(rates, dtype=np.float64)
    np.fill_diagonal(out, 0.0)
    np.fill_diagonal(out, -out.sum(axis=0))
    return out


def kernel(Q: Array, sigma: float) -> Array:
    """exp(σQ): entry [y, x] = P(y after noise σ | x). Negative σ: the inverse."""
    return np.asarray(expm(sigma * Q))


def stationary(Q: Array) -> Array:
    """The law with Q π = 0 (asserts that there is one)."""
    kernel_basis = null_space(Q)
    assert kernel_basis.shape[1] == 1, "the end law is not unique"
    return kernel_basis[:, 0] / kernel_basis[:, 0].sum()


# --- laws over S^L ------------------------------------------------------------------------------------------


def states(size: int, length: int) -> npt.NDArray[np.int64]:
    """All states of S^L, [S^L, L], in C order (the last position runs fastest)."""
    return np.stack(np.unravel_index(np.arange(size**length), (size,) * length), axis=-1).astype(np.int64)


def random_joint(size: int, length: int, seed: int = 0, concentration: float = 1.0) -> Array:
    """A positive, correlated random law over ``size``^``length``; small concentrations are spiky."""
    weights = np.random.default_rng(seed).gamma(concentration, 1.0, (size,) * length) + 1e-3
    return weights / weights.sum()


def embed(p0: Array, size: int) -> Array:
    """A law over V^L as one over S^L, S ≥ V, without mass on the added states."""
    return np.pad(p0, [(0, size - p0.shape[0])] * p0.ndim)


def push(law: Array, K: Array) -> Array:
    """Apply the one-position kernel ``K`` [S, S] to every axis of a joint law."""
    for axis in range(law.ndim):
        law = np.moveaxis(np.tensordot(K, law, axes=(1, axis)), 0, axis)
    return law


def noised(p0: Array, Q: Array, sigma: float) -> Array:
    """Law of x_σ, shape ``(S,) * L``."""
    return push(p0, kernel(Q, sigma))


def scores(law: Array) -> Array:
    """Exact scores of a joint law, [S^L, L, S]: entry [n, l, y] = p(x_n with position l set to y) / p(x_n).

    Own entries are 1. Where p(x_n) = 0 the entries are inf or nan: such states do not occur.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return _swapped(law) / law.reshape(-1)[:, None, None]


def conditionals(law: Array) -> Array:
    """P(x^l = y | the other positions of x_n), [S^L, L, S] (nan where the others cannot occur)."""
    swapped = _swapped(law)
    with np.errstate(divide="ignore", invalid="ignore"):
        return swapped / swapped.sum(-1, keepdims=True)


def clean_given_rest(p0: Array, Q: Array, sigma: float) -> Array:
    """P(x_0^l = y | the *other* positions of x_σ = x_n), [S^L, L, S]: what ``Look.clean`` means."""
    size, length = p0.shape[0], p0.ndim
    K = kernel(Q, sigma)
    out = np.empty((size**length, length, size))
    for position in range(length):
        law = p0
        for axis in range(length):
            if axis != position:
                law = np.moveaxis(np.tensordot(K, law, axes=(1, axis)), 0, axis)
        out[:, position] = conditionals(law)[:, position]
    return out


def reverse_joint(p0: Array, Q: Array, sigma_t: float, sigma_s: float) -> Array:
    """Bayes' reverse kernel, [S^L, S^L]: entry [n, m] = P(x_s = m | x_t = n), nan where n cannot occur."""
    size, length = p0.shape[0], p0.ndim
    K = kernel(Q, sigma_t - sigma_s)
    index = states(size, length)
    forward = np.prod([K[index[:, None, k], index[None, :, k]] for k in range(length)], axis=0)
    joint = forward * noised(p0, Q, sigma_s).reshape(-1)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        return joint / joint.sum(-1, keepdims=True)


def reverse_marginals(p0: Array, Q: Array, sigma_t: float, sigma_s: float) -> Array:
    """[S^L, L, S]: entry [n, l, y] = P(x_s^l = y | x_t = n), the marginals of ``reverse_joint``."""
    size, length = p0.shape[0], p0.ndim
    joint = reverse_joint(p0, Q, sigma_t, sigma_s).reshape((size**length, *p0.shape))
    others = [tuple(1 + j for j in range(length) if j != k) for k in range(length)]
    return np.stack([joint.sum(axis=axes) for axes in others], axis=1)


def posterior_clean(p0: Array, Q: Array, sigma: float) -> Array:
    """[S^L, S^L]: entry [n, m] = P(x_0 = m | x_σ = n)."""
    return reverse_joint(p0, Q, sigma, 0.0)


def restrict(law: Array, fixed: dict[int, int]) -> Array:
    """The conditional law given x^l = token for ``fixed`` = {l: token}: same shape, zero elsewhere."""
    mask = np.zeros_like(law)
    mask[tuple(fixed.get(k, slice(None)) for k in range(law.ndim))] = 1.0
    return law * mask / (law * mask).sum()


def total_variation(p: Array, q: Array) -> float:
    """Half the L1 distance."""
    return float(0.5 * np.abs(p - q).sum())


def kl(p: Array, q: Array) -> float:
    """KL(p ‖ q) in nats; 0·log 0 = 0."""
    p, q = p.reshape(-1), q.reshape(-1)
    inside = p > 0
    with np.errstate(divide="ignore"):
        return float((p[inside] * (np.log(p[inside]) - np.log(q[inside]))).sum())


def zipf(size: int = 50_257, shift: float = 2.7, power: float = 1.07) -> Array:
    """Weights 1/(rank + shift)^power, rank = 1 … size, normalised: entropy 7.706 nats at 50,257."""
    weights = (np.arange(1, size + 1) + shift) ** -power
    return weights / weights.sum()


def entropy(p: Array) -> float:
    """−Σ p log p in nats."""
    inside = p[p > 0]
    return float(-(inside * np.log(inside)).sum())


# --- score entropy and the bound ----------------------------------------------------------------------------


def log_ratios(Q: Array, x0: int, x: int, sigma: float) -> Array:
    """log p(y|x0)/p(x|x0) at σ, [S]; −inf where y cannot be reached."""
    law = np.maximum(kernel(Q, sigma)[:, x0], 0.0)  # expm leaves entries of ±1e-17 where the truth is smaller
    with np.errstate(divide="ignore"):
        return np.log(law) - np.log(law[x])


def score_entropy(Q: Array, log_score: Array, x: int, x0: int, sigma: float) -> float:
    """Σ_{y≠x} Q[x, y] (s_y − r_y log s_y + r_y (log r_y − 1)): SEDD eq. 14 for one position, per unit of σ.

    ``log_score`` [S]; r = 0 terms count s_y only.
    """
    log_r = log_ratios(Q, x0, x, sigma)
    total = 0.0
    for y in range(Q.shape[0]):
        if y == x or Q[x, y] == 0.0:
            continue
        r = np.exp(log_r[y])
        rest = r * (log_r[y] - 1.0 - log_score[y]) if r > 0 else 0.0
        total += Q[x, y] * (np.exp(log_score[y]) + rest)
    return float(total)


def integrate(f: Callable[[float], float], low: float, high: float, panels: int = 24, order: int = 12) -> float:
    """∫ f(σ) dσ over [low, high], low > 0: Gauss-Legendre panels in log σ (integrands go like log σ at 0)."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(np.log(low), np.log(high), panels + 1)
    total = 0.0
    for a, b in itertools.pairwise(edges):
        sigmas = np.exp(0.5 * (b - a) * nodes + 0.5 * (a + b))
        total += 0.5 * (b - a) * sum(w * s * f(float(s)) for s, w in zip(sigmas, weights, strict=True))
    return float(total)


def expected_score_entropy(
    p0: Array,
    Q: Array,
    x0: npt.NDArray[np.int64],
    sigma: float,
    entropy_of: Callable[..., float] | None = None,
) -> float:
    """E over x_σ given ``x0`` [L] of the summed score entropy at the exact score.

    ``entropy_of(log_score [L, S], x [L], x0 [L], sigma) -> nats`` stands in for the generic sum (to test
    closed forms).
    """
    size, length = p0.shape[0], p0.ndim
    K = kernel(Q, sigma)
    with np.errstate(divide="ignore"):
        log_scores = np.log(scores(noised(p0, Q, sigma)))
    total = 0.0
    for n, x in enumerate(states(size, length)):
        weight = float(np.prod([K[x[k], x0[k]] for k in range(length)]))
        if weight <= 0.0:
            continue
        if entropy_of is not None:
            total += weight * entropy_of(log_scores[n], x, x0, sigma)
        else:
            total += weight * sum(
                score_entropy(Q, log_scores[n, k], int(x[k]), int(x0[k]), sigma) for k in range(length)
            )
    return total


def end_kl(p0: Array, Q: Array, x0: npt.NDArray[np.int64], sigma: float) -> float:
    """KL(q(x_σ | x0) ‖ p_σ), with p_σ the *true* marginal at σ: the term that makes the bound an equality."""
    clean = np.zeros_like(p0)
    clean[tuple(x0)] = 1.0
    return kl(noised(clean, Q, sigma), noised(p0, Q, sigma))


def _swapped(law: Array) -> Array:
    """[S^L, L, S]: entry [n, l, y] = law at x_n with position l set to y."""
    size, length = law.shape[0], law.ndim
    index = states(size, length)
    out = np.empty((size**length, length, size))
    for position in range(length):
        for y in range(size):
            at = index.copy()
            at[:, position] = y
            out[:, position, y] = law[tuple(at.T)]
    return out
