"""Translate a state dict between two layouts by a list of entries, strictly: every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from workbench.core.errors import WorkbenchError


@dataclass(frozen=True)
class Entry:
    """One tensor's two names. ``transposed``: the published one is stored the other way round."""

    ours: str
    theirs: str
    transposed: bool = False


def to_ours(
    state: Mapping[str, Tensor],
    entries: Iterable[Entry],
    like: Mapping[str, Tensor],
    ignored: Collection[str] = (),
    prefix: str = "",
) -> dict[str, Tensor]:
    """``state`` under our names. ``like``: our state dict, for the shapes; ``ignored``: published names to skip.

    ``prefix``: what stands before the published names in ``state``.

    Raises:
        WorkbenchError: lists every tensor that is missing, unknown or of the wrong shape.
    """
    entries = list(entries)
    known = {prefix + entry.theirs for entry in entries} | {prefix + name for name in ignored} | set(ignored)
    faults = [f"unknown: {name}" for name in state if name not in known]
    found = {}
    for entry in entries:
        name = prefix + entry.theirs
        if name not in state:
            faults.append(f"missing: {name}")
            continue
        value = state[name]
        if entry.transposed and value.dim() == 2:
            value = value.t()
        if value.shape != like[entry.ours].shape:
            faults.append(
                f"shape: {name} is {list(state[name].shape)}, {entry.ours} here is "
                f"{list(like[entry.ours].shape)}"
            )
        found[entry.ours] = value.contiguous()
    if faults:
        raise WorkbenchError("the weights do not fit this backbone:\n" + "\n".join(f"  {fault}" for fault in faults))
    return found


def to_theirs(state: Mapping[str, Tensor], entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Our state dict under the published names.

    Raises:
        WorkbenchError: lists our tensors that the published layout has no place for.
    """
    entries = list(entries)
    homeless = sorted(set(state) - {entry.ours for entry in entries})
    if homeless:
        raise WorkbenchError(f"the published layout has no place for: {', '.join(homeless)}")
    return {
        entry.theirs: (state[entry.ours].t() if entry.transposed else state[entry.ours]).contiguous()
        for entry in entries
    }
