"""Rate matrices: checking them, their end law, their exponential. Q[y, x] is the rate x → y."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from workbench.core.errors import WorkbenchError

TOLERANCE = 1e-8
"""How far a column's sum may lie from 0, relative to the largest rate."""
TAYLOR = 18
"""Terms of the series of exp at norm ≤ 1/2: the rest is below 1e-22."""


def generator(rates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Off-diagonal ``rates`` with the diagonal that makes columns sum to zero."""
    out = np.array(rates, dtype=np.float64)
    np.fill_diagonal(out, 0.0)
    np.fill_diagonal(out, -out.sum(axis=0))
    return out


def check_rates(rates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``rates`` as a float64 matrix whose columns sum to zero exactly (up to one rounding).

    Raises:
        WorkbenchError: with the first entry or column that is wrong.
    """
    try:
        matrix = np.array(rates, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise WorkbenchError(f"the rate matrix is no matrix of numbers ({error})") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise WorkbenchError(f"the rate matrix must be square, but its shape is {matrix.shape}")
    off = matrix - np.diag(np.diag(matrix))
    for bad, what in ((~np.isfinite(matrix), "is not finite"), (off < 0, "is negative off the diagonal")):
        if bad.any():
            y, x = np.argwhere(bad)[0]
            raise WorkbenchError(f"the rate {x} → {y} (row {y}, column {x}) {what}: {matrix[y, x]:g}")
    sums = matrix.sum(axis=0)
    x = int(np.abs(sums).argmax())
    slack = TOLERANCE * max(1.0, float(np.abs(matrix).max()))
    if abs(sums[x]) > slack:
        hint = f"its diagonal entry should be {-off[:, x].sum():g}"
        if np.abs(matrix.sum(axis=1)).max() <= slack:
            hint = "its rows do: give the transpose"
        raise WorkbenchError(f"columns of a rate matrix sum to zero, column {x} to {sums[x]:g}; {hint}")
    return generator(matrix)


def stationary(rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The law π with Q π = 0: what every start tends to.

    Raises:
        WorkbenchError: the chain has several closed sets of states, and so several end laws.
    """
    size = len(rates)
    reach = (rates.T > 0) | np.eye(size, dtype=bool)  # reach[x, y]: y can be reached from x
    for _ in range(max(1, math.ceil(math.log2(size)))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    closed = (~reach | reach.T).all(axis=1)  # whoever x reaches can come back
    first = int(closed.argmax())
    apart = closed & ~reach[first]
    if apart.any():
        raise WorkbenchError(
            f"the rate matrix has no unique end law: states {first} and {int(apart.argmax())} never meet; "
            "connect them by rates > 0"
        )
    inside = np.flatnonzero(closed)
    system = rates[np.ix_(inside, inside)].copy()
    system[-1] = 1.0
    right = np.zeros(len(inside))
    right[-1] = 1.0
    law = np.zeros(size)
    law[inside] = np.linalg.solve(system, right).clip(min=0.0)
    return law / law.sum()


def exponential(rates_SS: Tensor, delta_U: Tensor) -> Tensor:
    """exp(ΔQ) for every Δ, [U, S, S], float64.

    Forwards by uniformisation, exp(ΔQ) = e^−λΔ exp(Δ(Q + λI)) with λ the fastest rate: all terms are ≥ 0, so
    small probabilities (several jumps at small noise) keep their relative precision, which a general
    ``matrix_exp`` loses. The inverse kernel (Δ < 0) has no such form and takes ``torch.linalg.matrix_exp``: it grows
    like e^(λ|Δ|), λ up to twice the fastest rate, and rounding errors with it (`inverse` does not).
    """
    fastest = float((-rates_SS.diagonal()).max())
    eye_SS = torch.eye(len(rates_SS), dtype=rates_SS.dtype, device=rates_SS.device)
    out = eye_SS.repeat(len(delta_U), 1, 1)
    positive_SS = rates_SS + fastest * eye_SS
    if bool((delta_U < 0).any()):
        out = torch.linalg.matrix_exp(delta_U.clamp_max(0)[:, None, None] * rates_SS)
    for number, delta in enumerate(delta_U.tolist()):
        if delta > 0:
            halvings = max(0, math.ceil(math.log2(max(delta * fastest, 1e-300))) + 1)
            small = delta / 2**halvings
            term = kernel = eye_SS
            for order in range(1, TAYLOR):
                term = (small / order) * (positive_SS @ term)
                kernel = kernel + term
            kernel = kernel * math.exp(-small * fastest)
            for _ in range(halvings):
                kernel = kernel @ kernel
            out[number] = kernel / kernel.sum(0)  # squaring lets rounding in the column sums grow
    return out


def inverse(rates_SS: Tensor, delta_U: Tensor, end_S: Tensor, rounding: float) -> Tensor:
    """exp(−ΔQ) for every Δ ≥ 0 as far as laws known to a relative ``rounding`` say anything, [U, S, S], float64.

    exp(−ΔQ) itself where no mode of the chain can be lost. Beyond, by the truncated singular value decomposition of
    exp(ΔQ) − π1ᵀ, which acts on what differs from the end law π (Hansen 1987, "The truncated SVD as a method for
    regularization"): what has died to less than √``rounding`` stays at the end law, so that no error grows beyond
    √``rounding``. Finite at any Δ, and sums are kept. On a star of 257 states exp(−ΔQ) is e^257 at Δ = 1.
    """
    least = math.sqrt(rounding)
    fastest = float((-rates_SS.diagonal()).max())
    near_U = 2 * fastest * delta_U < -math.log(least)
    out = exponential(rates_SS, -delta_U.where(near_U, 0.0))
    end_SS = end_S[:, None].expand_as(rates_SS)
    scale_S = end_S.clamp_min(least**2).sqrt()  # in these units the modes of a reversible chain are orthogonal
    apart_SS = torch.eye(len(rates_SS), dtype=rates_SS.dtype, device=rates_SS.device) - end_SS
    for number in (~near_U).nonzero().flatten().tolist():
        (kernel_SS,) = exponential(rates_SS, delta_U[number : number + 1])
        apart = (kernel_SS - end_SS) * scale_S / scale_S[:, None]
        back_SS = torch.linalg.pinv(apart, atol=least, rtol=0.0) * scale_S[:, None] / scale_S
        out[number] = end_SS + apart_SS @ back_SS @ apart_SS
    return out


def inverse_cdf(law_RS: Tensor, u_R: Tensor) -> Tensor:
    """Index of the first entry whose running sum exceeds u · total, [R]: never one of probability zero."""
    running_RS = law_RS.cumsum(-1)
    total_R = running_RS[:, -1]
    # u < 1, but u · total may round up to the total, past which there is nothing
    level_R = torch.minimum(u_R.to(law_RS.dtype) * total_R, torch.nextafter(total_R, torch.zeros_like(total_R)))
    return torch.searchsorted(running_RS, level_R.unsqueeze(-1), right=True).squeeze(-1)


def read_matrix(file: str, reader: str = "graph dense") -> npt.NDArray[np.float64]:
    """A matrix from a ``.npy`` or ``.npz`` (of one array; nothing is unpickled), ``.csv`` or ``.yaml`` file.

    ``reader``: the part that messages name.

    Raises:
        WorkbenchError: the file is missing, unreadable or of another kind.
    """
    path = Path(file)
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": lambda p: np.load(p, allow_pickle=False),
        ".npz": _only_array,
        ".csv": lambda p: np.loadtxt(p, delimiter=",", ndmin=2),
        ".yaml": lambda p: yaml.safe_load(p.read_text(encoding="utf-8")),
        ".yml": lambda p: yaml.safe_load(p.read_text(encoding="utf-8")),
    }
    if path.suffix not in readers:
        raise WorkbenchError(f"{reader}: file {file!r} must end in .npy, .npz, .csv or .yaml")
    try:
        return np.array(readers[path.suffix](path), dtype=np.float64)
    except (OSError, EOFError, TypeError, ValueError, BadZipFile, yaml.YAMLError) as error:
        raise WorkbenchError(f"{reader}: cannot read a matrix from {file!r}: {error}") from None


def _only_array(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise ValueError(f"it holds {len(arrays.files)} arrays ({', '.join(arrays.files)}); give one")
        return arrays[arrays.files[0]]
