"""Tensors of which each process holds some rows: what is here, the whole, and files of rows.

A sharded tensor is a ``DTensor`` cut along its first axis as `torch.chunk` cuts. The module that defines it takes a
second to import, which training alone need not wait for: where nobody has imported it, nothing is cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

ROWS = "rows"
"""The entry of a file's header that says how many rows each cut tensor has in all."""

Cut = Callable[[str, int], slice]
"""``cut(name, rows)``: the rows that are wanted of a tensor of ``rows`` rows."""


def is_cut(tensor: Tensor) -> bool:
    """Whether this process holds but a part of it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """What this process holds: its rows, in the same storage; a whole tensor itself."""
    held: Any = tensor
    return held.to_local() if is_cut(tensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; every process calls it where it is cut."""
    held: Any = tensor
    return held.full_tensor() if is_cut(tensor) else tensor


@torch.no_grad()
def cut_like(model: Tensor, rows: Tensor) -> Tensor:
    """``rows`` as this process's part of a tensor that is cut as ``model`` is; themselves where it is whole.

    They may be of another width than ``model``'s.
    """
    if not is_cut(model):
        return rows
    from torch.distributed.tensor import DTensor

    held: Any = model
    mesh, placements = held.device_mesh, held.placements
    rows = rows.to(mesh.device_type).contiguous()
    shape = torch.Size((model.shape[0], *rows.shape[1:]))
    return DTensor.from_local(rows, mesh, placements, run_check=False, shape=shape, stride=rows.stride())


def rows_of(rank: int, world: int, rows: int) -> slice:
    """The rows of process ``rank`` among ``world``: equal parts, the last ones shorter or empty."""
    size = -(-rows // world)
    return slice(min(rank * size, rows), min((rank + 1) * size, rows))


def every_row(name: str, rows: int) -> slice:
    """The cut that takes all."""
    return slice(0, rows)


def file_names(role: str, names: Sequence[str]) -> list[str]:
    """Those of a checkpoint's files that hold a role: one, or one a process."""
    return [name for name in names if name == f"{role}.safetensors" or name.startswith(f"{role}.")]


def files(role: str, tensors: Mapping[str, Tensor], rank: int, world: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(name, content) of the files that process ``rank`` writes of a role.

    Where nothing is cut the first process writes one file; else each writes its rows, the first also what is whole.
    """
    cut = {name: tensor for name, tensor in tensors.items() if is_cut(tensor)}
    if not cut:
        if rank == 0:
            yield f"{role}.safetensors", dict(tensors)
        return
    rest = {name: tensor for name, tensor in tensors.items() if name not in cut} if rank == 0 else {}
    yield f"{role}.{rank}-of-{world}.safetensors", {**cut, **rest}


def write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what this process holds of tensors, and of how many rows they are the part."""
    rows = {name: tensor.shape[0] for name, tensor in tensors.items() if is_cut(tensor)}
    held = {name: local(tensor).detach().contiguous() for name, tensor in tensors.items()}
    if rows:
        save_file(held, file, {ROWS: json.dumps(rows)})
    else:
        save_file(held, file)


def read(sources: Sequence[Path], cut: Cut = every_row) -> dict[str, Tensor]:
    """The wanted rows of all tensors in files of one role, put together on the CPU. Nothing else is read.

    Raises:
        ValueError: rows are missing.
    """
    found: dict[str, Tensor] = {}
    missing: dict[str, int] = {}
    for source in sources:
        with safe_open(source, "pt") as opened:
            cuts: dict[str, int] = json.loads((opened.metadata() or {}).get(ROWS, "{}"))
            index, count = _place(source)
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                piece = opened.get_slice(name)
                shape = piece.get_shape()
                if not shape:
                    found[name] = opened.get_tensor(name).clone()
                    continue
                total = cuts.get(name, shape[0])
                start = rows_of(index, count, total).start if name in cuts else 0
                wanted = cut(name, total)
                first, last = max(wanted.start, start), min(wanted.stop, start + shape[0])
                if name not in found:
                    dtype = opened.get_tensor(name).dtype if 0 in shape else piece[:1].dtype
                    found[name] = torch.empty(wanted.stop - wanted.start, *shape[1:], dtype=dtype)
                    missing[name] = len(found[name])
                if first < last:
                    found[name][first - wanted.start : last - wanted.start] = piece[first - start : last - start]
                    missing[name] -= last - first
    for name, rows in missing.items():
        if rows:
            raise ValueError(f"{rows} rows of {name} are missing")
    return found


def _place(file: Path) -> tuple[int, int]:
    """(process, processes) of a file of rows: ``model.0-of-2.safetensors``; (0, 1) of a whole one."""
    words = file.name.split(".")[-2].split("-of-")
    return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 1)
