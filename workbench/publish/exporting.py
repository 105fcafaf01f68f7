"""A run's weights as a folder that others load: config.json, model.safetensors, a model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.weights.base import Layout
from workbench import __version__, assemble
from workbench.assemble import Model
from workbench.core.errors import WorkbenchError
from workbench.core.files import read_json, sync_file, write_json, write_text
from workbench.core.loading import Resolved
from workbench.metrics.results import Results, ResultsError
from workbench.opening import reopen
from workbench.publish.card import card, import_words
from workbench.publish.importing import SOURCE
from workbench.run import RunFolder
from workbench.train.checkpoint import load_weights

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Exported:
    """A folder written: its layout, its files, the words to import it again, and why no published layout has a place
    for the run ("": one has).
    """

    folder: Path
    layout: Layout
    files: tuple[str, ...]
    back: str
    why: str = ""


def give_out(
    path: Path | str, folder: Path, layout: str = "", pickled: bool = False, which: str = "last", averaged: bool = True
) -> Exported:
    """Write a run's weights into a new folder.

    ``layout``: its name; without one the published layout that has a place for the run, else the workbench's own.
    ``pickled``: in the publisher's torch format; ``which``: last, best or a step; ``averaged``: the averaged weights.

    Raises:
        WorkbenchError: the layout has no place for the run, with every reason; the folder is not empty.
    """
    run, resolved = reopen(path)
    tokenizer = assemble.kept_tokenizer(resolved, run.path)
    model = assemble.model(resolved, tokenizer)
    step = load_weights(model.backbone, run.ckpt, averaged, which).step
    one, why = pick(layout, resolved, model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbenchError(f"{folder} is there and not empty; name a new folder by --to")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        draft.mkdir(parents=True)
        config = one.config(resolved.portable(), tokenizer.vocab, tokenizer.eos) | {"workbench_version": __version__}
        if pickled:
            _write_torch(draft, one, model, run, which, averaged, config)
        else:
            _write_safe(draft, one.save(model.backbone))
        write_json(draft / "config.json", config)
        _write_beside(draft, run, resolved)
        text = card(resolved, one, model.parameters, step, averaged, _results(run, step), _origin(run))
        write_text(draft / "README.md", text)
        if folder.is_dir():
            folder.rmdir()
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return Exported(folder, one, tuple(files), import_words(resolved, one, str(folder)), why)


def pick(name: str, resolved: Resolved, model: Model) -> tuple[Layout, str]:
    """(the layout of that name, or the first that has a place for the run; why no published one has).

    Raises:
        WorkbenchError: the named one has none, with every reason.
    """
    known: dict[str, Any] = dict(Layout.registered)
    if name:
        one: Layout = known[Layout.lookup(name).type_name]()
        if reasons := list(_objections(one, resolved, model)):
            raise WorkbenchError(
                f"layout {name!r} has no place for this run:\n" + "\n".join(f"  {reason}" for reason in reasons)
            )
        return one, ""
    told: list[str] = []
    for when in ("first", "last"):
        for _, part in sorted(known.items()):
            if part.chosen == when:
                reasons = list(_objections(part(), resolved, model))
                if not reasons:
                    return part(), "\n".join(told) if when == "last" else ""
                told.append(f"{part.type_name}: {'; '.join(reasons)}")
    raise WorkbenchError("no layout has a place for this run:\n" + "\n".join(told))


def _objections(layout: Layout, resolved: Resolved, model: Model) -> Iterator[str]:
    """What a recipe or a network holds that a layout has no place for."""
    reasons = list(layout.objections(resolved.data))
    if not reasons:
        try:
            layout.save(model.backbone)
        except WorkbenchError as error:
            reasons = [str(error)]
    yield from reasons


def _write_safe(draft: Path, state: dict[str, Tensor]) -> None:
    # copies: two names of one tensor (a tied head) are two tensors in the file, as transformers writes them
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    save_file(tensors, draft / WEIGHTS, metadata={"format": "pt"})
    (draft / WEIGHTS).chmod(draft.stat().st_mode & 0o666)  # as the user's umask has it: safetensors writes 0600
    sync_file(draft / WEIGHTS)


def _write_torch(
    draft: Path, layout: Layout, model: Model, run: RunFolder, which: str, averaged: bool, config: dict[str, Any]
) -> None:
    """The publisher's torch file: the last weights, and the averages where its format has both."""

    def saved(ema: bool) -> tuple[dict[str, Tensor], int]:
        step = load_weights(model.backbone, run.ckpt, ema, which).step
        return {name: value.detach().clone() for name, value in layout.save(model.backbone).items()}, step

    weights, step = saved(False)
    name, content = layout.torch_file(weights, saved(True)[0] if averaged else None, step)
    (draft / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, draft / name)
    sync_file(draft / name)
    for file, text in layout.texts(config).items():
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        write_text(draft / file, text)


def _write_beside(draft: Path, run: RunFolder, resolved: Resolved) -> None:
    """The tokenizer, where it was learned, and the plug-ins: what an import needs."""
    if not assemble.data_of(resolved).tokenizer.ready:
        shutil.copytree(run.path / assemble.TOKENIZER, draft / assemble.TOKENIZER)
    for plugin in resolved.plugins:
        (draft / "plugins").mkdir(exist_ok=True)
        shutil.copy2(plugin.path, draft / "plugins" / plugin.path.name)


def _results(run: RunFolder, step: int) -> Results | None:
    """The run's figures, where they are of the weights that are written."""
    try:
        results = Results.from_data(read_json(run.results))
    except (OSError, ValueError, ResultsError):
        return None
    return results if results.provenance.get("step") == step else None


def _origin(run: RunFolder) -> dict[str, Any]:
    """Where the run's weights were imported from; {} where they were trained here."""
    try:
        note = json.loads((run.path / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
