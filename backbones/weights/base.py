"""The contract of published layouts: whose weights these are, which recipe uses them, and how they are named.

A layout is read both ways. On the way in it tells from keys, shapes and config.json which backbone and process the
weights are of, as plain recipe data; on the way out it says whether it has a place for a run and what its
config.json holds. It knows no process, graph or sampler but by name, and draws no conclusion from a file's name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from backbones.base import Backbone
from workbench.core.errors import WorkbenchError
from workbench.core.part import Part

USUAL_HEAD = 64
"""Width of a head in GPT-2 and in every network of SEDD, MDLM, DUO and BD3-LM, where nothing else tells it."""


@dataclass(frozen=True)
class Published:
    """Weights as they were found.

    ``state``: tensors by their published names; ``config``: what came beside them, plain data; ``averaged``: averages
    of the parameters, a list in the publisher's order, where a training checkpoint holds them; ``step``: updates done.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    averaged: Sequence[Tensor] | None = None
    step: int | None = None

    def told(self, *names: str) -> Any:
        """The config's entry of one of these names, the outermost first; None where there is none."""
        level: list[Any] = [self.config]
        while level:
            for holder in level:
                for name in names:
                    if isinstance(holder, Mapping) and holder.get(name) is not None:
                        return holder[name]
            level = [inner for holder in level if isinstance(holder, Mapping) for inner in holder.values()]
        return None

    def number(self, *names: str) -> int | None:
        """A positive integer that the config tells; None where it tells none."""
        value = self.told(*names)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def shape(self, name: str, dims: int) -> tuple[int, ...] | None:
        """The shape of a tensor that is there, has so many dimensions and none of size 0; None for any other."""
        value = self.state.get(name)
        fits = value is not None and value.dim() == dims and value.numel() > 0
        return tuple(value.shape) if value is not None and fits else None

    @property
    def model_type(self) -> str:
        """What config.json says it is a config of, in small letters; "" where it says nothing."""
        value = self.config.get("model_type")
        return value.lower() if isinstance(value, str) else ""


@dataclass(frozen=True)
class Reading:
    """What a layout makes of weights.

    ``recipes``: recipe data to lay over the shipped recipe ``base`` ("" for none: they are whole), one for each way
    in which the weights may be meant; the tokens decide which. ``states``: rows of the token table (None: the recipe
    says it). ``notes``: what was inferred, in words; ``unknown``: backbone settings that nothing tells, and why;
    ``refusal``: why no process here can use them ("": one can).
    """

    recipes: tuple[Mapping[str, Any], ...]
    base: str = ""
    states: int | None = None
    notes: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    refusal: str = ""


class Layout(Part, ABC, kind="layout"):
    """A published way to name and keep a network's weights.

    ``model_types``: what config.json calls networks of this layout. ``chosen``: whether a run that fits is written so
    by itself ("first"), where no other layout has a place for it ("last"), or only where it is "asked" for. ``toy``:
    settings of a small backbone that fits, for the contract checks.
    """

    model_types: ClassVar[frozenset[str]] = frozenset()
    chosen: ClassVar[Literal["first", "last", "asked"]] = "first"
    toy: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def recognises(self, found: Published) -> bool:
        """Whether these are weights of this layout and of no other."""

    @abstractmethod
    def read(self, found: Published) -> Reading:
        """Backbone, process and sizes, from keys, shapes and config.

        Raises:
            WorkbenchError: a tensor that sizes are read from is missing or of no use.
        """

    @abstractmethod
    def load(self, net: Backbone, state: Mapping[str, Tensor]) -> None:
        """Put published weights into ``net``; buffers that follow from the sizes are passed over.

        Raises:
            WorkbenchError: lists every tensor that is missing, unknown or of the wrong shape; nothing is loaded then.
        """

    @abstractmethod
    def save(self, net: Backbone) -> dict[str, Tensor]:
        """The weights of ``net`` by their published names.

        Raises:
            WorkbenchError: ``net`` has parameters that the layout has no place for.
        """

    @abstractmethod
    def objections(self, recipe: Mapping[str, Any]) -> Iterator[str]:
        """What of a resolved recipe the layout has no way to say; nothing: its runs can be written."""

    @abstractmethod
    def config(self, recipe: Mapping[str, Any], vocab: int, eos: int) -> dict[str, Any]:
        """What config.json holds of a run: ``read`` finds the recipe's network and process in it."""

    def order(self, found: Published) -> list[str]:
        """Published names of the parameters in the publisher's order, for averages that come without names.

        Raises:
            WorkbenchError: the layout knows no such order.
        """
        raise WorkbenchError(
            f"the averaged weights are a list without names, and layout {self.type_name!r} knows no order of them: "
            "keep a state dict of the averaged weights alone, and import that"
        )

    def torch_file(
        self, weights: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None, step: int
    ) -> tuple[str, Any]:
        """(file, content) of the publisher's own torch format: a state dict, averaged where there is an average."""
        return "pytorch_model.bin", dict(weights if averaged is None else averaged)

    def texts(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Further text files of the publisher's torch format, by name."""
        return {}


def depth_of(state: Mapping[str, Tensor], before: str) -> int:
    """How many blocks there are: 1 and the largest number behind ``before`` (a pattern).

    Raises:
        WorkbenchError: a number beyond all that the tensors could fill.
    """
    found = (re.match(rf"{before}(\d{{1,9}})\.", name) for name in state)
    depth = max((int(match[1]) + 1 for match in found if match), default=1)
    if depth > len(state):
        raise WorkbenchError(f"a block number {depth - 1} among {len(state)} tensors: no such network is whole")
    return depth


def differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where plain data ``found`` is not as ``wanted`` says, in words; what ``wanted`` leaves out may be anything."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name, value in wanted.items():
            yield from differences(value, found.get(name), f"{path}.{name}" if path else name)
    elif wanted != found:
        yield f"{path} is {found!r}, the layout means {wanted!r}"


def agrees(wanted: Any, found: Any) -> bool:
    """Whether ``found`` is as ``wanted`` says."""
    return not any(differences(wanted, found))


def named(table: Mapping[Any, Any], found: Any) -> Any:
    """The key of ``table`` whose value ``found`` agrees with; None where none is."""
    return next((key for key, wanted in table.items() if agrees(wanted, found)), None)


def heads_of(dim: int, told: int | None, settings: dict[str, Any], unknown: dict[str, str]) -> str:
    """Set ``heads``, told or by the usual width; or say in ``unknown`` that nothing tells them. A note, or ""."""
    if told is not None:
        settings["heads"] = told
        return ""
    if dim % USUAL_HEAD == 0 and dim > USUAL_HEAD:
        settings["heads"] = dim // USUAL_HEAD
        return f"heads are taken to be {USUAL_HEAD} wide, as in all published networks: nothing here tells"
    unknown["heads"] = "neither shapes nor a config.json tell how many heads the attention has"
    return ""
