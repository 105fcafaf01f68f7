"""Published weights become a run: recognised, given a recipe, checked name by name, kept as a checkpoint.

What is imported is a run as any other, trained and not yet evaluated; its hash is of the recipe *and* the weights, so
that the same recipe trained here is another run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.weights.base import Layout, Published, Reading
from backbones.weights.files import read_weights
from workbench import assemble
from workbench.core.errors import WorkbenchError
from workbench.core.files import write_json
from workbench.core.index import import_parts
from workbench.core.loading import Resolved, resolve_as
from workbench.core.places import recipes_folder
from workbench.core.tree import load_tree, merge, override, stable_hash
from workbench.data.base import Tokenizer
from workbench.processes.base import named_weights
from workbench.publish.sources import default_name, fetch
from workbench.recipe import Recipe
from workbench.run import RunFolder
from workbench.train.checkpoint import Checkpoints, list_steps

SOURCE = "source.json"
"""The note in a run's folder of where its weights came from."""
WHOLE = ("backbone", "process", "sampler")
"""Sections that a layout replaces; others it adds to."""
USE = {"train": {"precision": "auto"}}
"""What a published recipe is changed in: weights are used on any machine."""


@dataclass(frozen=True)
class Imported:
    """A run made of published weights. ``new``: made now, not found; ``notes``: what was inferred, in words."""

    run: RunFolder
    resolved: Resolved
    layout: Layout
    notes: tuple[str, ...]
    new: bool


def bring_in(
    source: str, overrides: Iterable[str] = (), root: Path | str = "runs", layout: str = "", trust: bool = False
) -> Imported:
    """Make the run of published weights, or find it.

    ``overrides``: of the recipe, as in training; ``layout``: its name, where keys do not tell; ``trust``: run the
    plug-ins that an exported run brings.

    Raises:
        WorkbenchError: the source is damaged, of no known layout, does not fit its sizes or the tokenizer, holds code.
    """
    import_parts()
    place, origin = fetch(source)
    found, files = read_weights(place)
    try:
        one = chosen(found, layout)
        reading = one.read(found)
        if reading.refusal:
            raise WorkbenchError(reading.refusal)
        resolved, tokenizer = fitting(reading, place, list(overrides), default_name(source), trust)
        roles = _roles(one, found, resolved, tokenizer)
    except WorkbenchError as error:
        raise WorkbenchError(f"{source}: {error}") from error
    digest = stable_hash({"recipe": resolved.hash, "layout": one.type_name, "weights": sorted(files.values())})
    run = RunFolder.create(resolved.name, digest, root, resolved.text(), [plugin.path for plugin in resolved.plugins])
    if run.finished and list(list_steps(run.ckpt)):
        return Imported(run, resolved, one, reading.notes, new=False)
    step = int(resolved.data["train"]["steps"]) if found.step is None else found.step
    with run.locked():
        tokenizer.save(run.path / assemble.TOKENIZER)
        note = {"layout": one.type_name, "files": files, "averaged": "ema" in roles, "inferred": reading.notes}
        write_json(run.path / SOURCE, origin | note)
        numbers = {"ema_updates": step, "seconds": 0.0, "tokens": 0, "skipped": [], "best": None}
        Checkpoints(run.ckpt, digest).save(step, roles, numbers)
        run.mark("trained", step=step, steps=int(resolved.data["train"]["steps"]))
    return Imported(run, resolved, one, reading.notes, new=True)


def chosen(found: Published, name: str = "") -> Layout:
    """The layout of that name, or the one that recognises the weights.

    Raises:
        WorkbenchError: none does, or several; lists the first keys.
    """
    known: dict[str, Any] = dict(Layout.registered)
    if name:
        return known[Layout.lookup(name).type_name]()
    ones: list[Layout] = [part() for _, part in sorted(known.items()) if part().recognises(found)]
    if len(ones) == 1:
        return ones[0]
    if ones:
        raise WorkbenchError(f"layouts {', '.join(one.type_name for one in ones)} would do: say which by --layout")
    keys = ", ".join(sorted(found.state)[:6])
    kind = f", config.json says {found.model_type!r}" if found.model_type else ""
    raise WorkbenchError(f"weights of no known layout ({keys} …{kind}). Layouts: {', '.join(sorted(known))}")


def fitting(
    reading: Reading, place: Path, overrides: list[str], name: str, trust: bool
) -> tuple[Resolved, Tokenizer]:
    """The first of a layout's recipes whose process has as many states as the weights have ids, and its tokenizer.

    Raises:
        WorkbenchError: none has; lists what was tried.
    """
    tried = []
    for piece in reading.recipes:
        tree = override(_tree(reading.base, piece, place, name, trust), overrides)
        for setting, why in reading.unknown.items():
            if tree["backbone"].get(setting) is None:
                raise WorkbenchError(f"{why}; add backbone.{setting}=…")
        resolved = resolve_as(Recipe, tree)
        tokenizer = _tokenizer(resolved, place)
        states = assemble.model(resolved, tokenizer, "meta").process.states
        if reading.states in (None, states):
            return resolved, tokenizer
        graph = resolved.node.under("process", "graph")
        how = "" if graph is None else f" on graph {graph.part.type_name!r}"
        tried.append(f"tokenizer {tokenizer.type_name!r} has {tokenizer.vocab} ids, which is {states} states{how}")
    raise WorkbenchError(
        f"the weights have a table of {reading.states} ids; {'; '.join(dict.fromkeys(tried))}. Name the tokenizer they "
        "were trained with, as in data.tokenizer=bytes, or count ids: data.tokenizer.type=ids data.tokenizer.vocab=N"
    )


def _tree(base: str, piece: Mapping[str, Any], place: Path, name: str, trust: bool) -> dict[str, Any]:
    """A layout's recipe data over its base, named; with the plug-ins that came along, if they are trusted."""
    tree: dict[str, Any] = load_tree(recipes_folder() / base) | {"name": name} if base else {}
    for section, data in piece.items():
        tree[section] = merge({}, data) if section in WHOLE else merge(tree.get(section), data)
    if base:
        return dict(merge(tree, USE))
    folder = place if place.is_dir() else place.parent
    brought = tree.get("plugins")
    plugins = [folder / "plugins" / Path(str(plugin)).name for plugin in brought] if isinstance(brought, list) else []
    if plugins and not trust:
        raise WorkbenchError(
            f"they come with Python code: {', '.join(str(plugin) for plugin in plugins)}. Read it; if you trust it, "
            "import with --trust, and it is run"
        )
    return tree | ({"plugins": [str(plugin) for plugin in plugins]} if plugins else {})


def _tokenizer(resolved: Resolved, place: Path) -> Tokenizer:
    """The recipe's tokenizer, ready: it needs no training, or its file came with the weights."""
    tokenizer = assemble.data_of(resolved).tokenizer
    folder = (place if place.is_dir() else place.parent) / assemble.TOKENIZER
    if not tokenizer.ready:
        if not (folder / tokenizer.file).is_file():
            raise WorkbenchError(
                f"tokenizer {tokenizer.type_name!r} learns from text, and weights know the one they were trained with: "
                f"put its {tokenizer.file} into {folder}, or name one that is ready (gpt2, bytes, ids)"
            )
        tokenizer.load(folder)
    tokenizer.state()  # what it needs and is not on this machine is said here, before a run is made
    return tokenizer


def _roles(
    layout: Layout, found: Published, resolved: Resolved, tokenizer: Tokenizer
) -> dict[str, Mapping[str, Tensor]]:
    """The checkpoint's tensors: the weights, and the averages where the source has both."""
    net = assemble.model(resolved, tokenizer).backbone
    layout.load(net, found.state)
    roles: dict[str, Mapping[str, Tensor]] = {
        "model": {name: value.clone() for name, value in named_weights(net).items()}
    }
    if found.averaged is None:
        return roles
    names = layout.order(found)
    # behind the network's parameters an average may hold those of the noise, single numbers that nobody reads
    rest = found.averaged[len(names) :]
    if len(found.averaged) < len(names) or any(value.numel() > 1 for value in rest):
        count = len(found.averaged)
        raise WorkbenchError(f"ema.shadow_params holds {count} tensors, the network has {len(names)} parameters")
    layout.load(net, {**found.state, **dict(zip(names, found.averaged, strict=False))})
    parameters = {name for name, _ in net.named_parameters()}
    return roles | {"ema": {name: value for name, value in named_weights(net).items() if name in parameters}}
