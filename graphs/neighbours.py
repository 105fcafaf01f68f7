"""A graph whose jumps prefer tokens of like meaning, by neighbours in an embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.base import Graph, expand_rows
from graphs.rates import generator, inverse_cdf, read_matrix
from workbench.core.bounds import Count, Open
from workbench.core.errors import Problem, WorkbenchError

if TYPE_CHECKING:
    from workbench.core.spec import Node

LARGEST = 2048
"""Tokens up to which the eigenvectors are held and found (V² numbers, V³ work, once)."""
CHUNK = 1024
"""Rows of the states axis at a time where a text is noised."""


@Graph.register("neighbours")
class Neighbours(Graph):
    """Jumps to the ``k`` nearest tokens of an embedding, and now and then to any.

    D3PM's transitions by token embedding distance (Austin et al. 2021, §3.1), in continuous time and with ``far``.

    Q = (1 − far) A + far (11ᵀ/V − I), A the generator of the graph of k nearest neighbours by cosine, made symmetric
    (either way counts) and divided by its largest degree. Q is symmetric: the end law is uniform. A leaves it as it is,
    so that exp(ΔQ) = e^(−far Δ) exp((1 − far) Δ A) + (1 − e^(−far Δ))/V, the former by the eigenvectors of A, found
    once; the latter keeps every probability well above rounding. Any two tokens meet, whatever the embedding.

    Settings:
        file: the embedding, a row a token (relative to the working directory): .npy, .npz (of one array), .csv or .yaml
        vectors: the same, row by row, in place of a file
        k: neighbours of a token
        far: share of jumps to any token
    """

    usual: ClassVar[Mapping[str, Any]] = {"noise": {"type": "geometric"}, "readout": {"type": "plain"}}

    def __init__(
        self,
        vocab: int,
        file: str | None = None,
        vectors: list[list[float]] | None = None,
        k: Count = 8,
        far: Open = 0.25,
    ) -> None:
        """Find neighbours and eigenvectors.

        Raises:
            WorkbenchError: not one of ``file`` and ``vectors``, or no embedding of ``vocab`` tokens with more than k.
        """
        rows_VD = embedding(file, vectors)
        if len(rows_VD) != vocab:
            raise WorkbenchError(
                f"the embedding has {len(rows_VD)} rows, the tokenizer {vocab} tokens: make them equal"
            )
        self.vocab, self.far = vocab, far
        near_VV = near(rows_VD, k)
        self.rates = torch.from_numpy((1 - far) * near_VV + far * generator(np.full((vocab, vocab), 1 / vocab)))
        pace_V, basis_VV = np.linalg.eigh(near_VV)
        self.pace_V, self.basis_VV = torch.from_numpy((1 - far) * pace_V), torch.from_numpy(basis_VV)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Five tokens in a plane."""
        return {"vectors": [[1.0, 0.0], [0.9, 0.3], [0.0, 1.0], [-0.4, 0.9], [-1.0, 0.1]], "k": 1}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """An embedding that is none, or too large: told before a run is made."""
        yield from super().misfits(node, root)
        try:
            near(embedding(node.settings["file"], node.settings["vectors"]), node.settings["k"])
        except WorkbenchError as error:
            yield Problem(node.path, str(error))

    def live(self, x: Tensor) -> Tensor:
        """Every position."""
        return torch.ones_like(x, dtype=torch.bool)

    def corrupt(self, x0: Tensor, sigma: Tensor, u: Tensor) -> Tensor:
        """Inverse CDF of column x0 of exp(σQ)."""

        def drawn(law_RS: Tensor, rows: slice) -> Tensor:
            return inverse_cdf(law_RS, u.reshape(-1)[rows])

        return self._by_rows(x0, sigma, drawn).reshape(x0.shape)

    def prior(self, u: Tensor) -> Tensor:
        """Uniform."""
        return (u * self.vocab).long().clamp_max(self.vocab - 1)

    def prior_kl(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """KL of column x0 of exp(σQ) to the uniform law."""

        def divergence(law_RS: Tensor, rows: slice) -> Tensor:
            # Σ p ln(pV) − p + 1/V: every term ≥ 0, so nothing cancels near the end law
            return (torch.xlogy(law_RS, law_RS * self.vocab) - law_RS + 1 / self.vocab).sum(-1).clamp_min(0)

        return self._by_rows(x0, sigma, divergence).to(sigma.dtype).reshape(x0.shape)

    def rate_into(self, x_R: Tensor, sigma_R: Tensor) -> Tensor:
        """Rows of Q."""
        return self.rates.to(x_R.device)[x_R].to(sigma_R.dtype)

    def kernel_into(self, x_R: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """Rows of exp((to − from) Q), which is symmetric."""
        return self.push(F.one_hot(x_R, self.vocab).double(), from_R, to_R).to(to_R.dtype)

    def push(self, v_RS: Tensor, from_R: Tensor, to_R: Tensor) -> Tensor:
        """exp((to − from) Q) v; backwards, v and its rounding errors grow like e^(gap·Δ)."""
        v, delta_R1 = v_RS.double(), (to_R - from_R).double().unsqueeze(-1)
        pace_V, basis_VV = self.pace_V.to(v.device), self.basis_VV.to(v.device)
        near_RS = (v @ basis_VV).mul_((pace_V * delta_R1).exp_()) @ basis_VV.T
        near_RS = torch.where((delta_R1 >= 0) & (v >= 0).all(-1, keepdim=True), near_RS.clamp_min(0), near_RS)
        far_R1 = -torch.expm1(-self.far * delta_R1)
        out_RS = near_RS * (1 - far_R1) + far_R1 * v.sum(-1, keepdim=True) / self.vocab
        return torch.where(delta_R1 == 0, v, out_RS).to(v_RS.dtype)

    def _by_rows(self, x0: Tensor, sigma: Tensor, of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """``of(law at σ, rows)`` of every token, flat, by chunks."""
        token, sigma_R = x0.reshape(-1), expand_rows(sigma, x0).expand(x0.shape).reshape(-1).double()
        found = []
        for start in range(0, token.numel(), CHUNK):
            rows = slice(start, start + CHUNK)
            found.append(of(self.kernel_into(token[rows], torch.zeros_like(sigma_R[rows]), sigma_R[rows]), rows))
        return torch.cat(found)


def embedding(file: str | None, vectors: list[list[float]] | None) -> npt.NDArray[np.float64]:
    """The embedding [V, D], from a file or as given.

    Raises:
        WorkbenchError: not one of both, no matrix of finite numbers, a row of zeros, or too many rows.
    """
    if (file is None) == (vectors is None):
        raise WorkbenchError("graph neighbours needs either file or vectors (not both)")
    if file is not None:
        rows_VD = read_matrix(file, "graph neighbours")
    else:
        try:
            rows_VD = np.array(vectors, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise WorkbenchError(f"the embedding is no matrix of numbers ({error})") from None
    if rows_VD.ndim != 2 or not np.isfinite(rows_VD).all() or not rows_VD.any(axis=-1).all():
        raise WorkbenchError("an embedding is a matrix of finite numbers, a row a token, none of them all zeros")
    if len(rows_VD) > LARGEST:
        raise WorkbenchError(
            f"graph neighbours holds the eigenvectors of {LARGEST:,} tokens at most (V² numbers, V³ work); the "
            f"embedding has {len(rows_VD):,}: take a smaller vocabulary, or graph uniform"
        )
    return rows_VD


def near(rows_VD: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    """The generator A of the k nearest neighbours by cosine, symmetric, its largest rate out 1.

    Raises:
        WorkbenchError: there are no k other tokens.
    """
    if len(rows_VD) <= k:
        raise WorkbenchError(f"{len(rows_VD)} tokens have no {k} neighbours each: lower k")
    unit_VD = rows_VD / np.linalg.norm(rows_VD, axis=-1, keepdims=True)
    like_VV = unit_VD @ unit_VD.T
    np.fill_diagonal(like_VV, -np.inf)
    nearest_Vk = np.argsort(-like_VV, axis=-1, kind="stable")[:, :k]
    touch_VV = np.zeros_like(like_VV)
    np.put_along_axis(touch_VV, nearest_Vk, 1.0, axis=-1)
    touch_VV = np.maximum(touch_VV, touch_VV.T)
    return generator(touch_VV / touch_VV.sum(0).max())
