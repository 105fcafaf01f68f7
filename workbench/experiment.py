"""What one does with a recipe: train it into a run folder, and evaluate the run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

from workbench import assemble
from workbench.begun import held
from workbench.core.files import read_json, write_json
from workbench.core.loading import Resolved
from workbench.data.base import Progress
from workbench.data.section import Prepared
from workbench.data.windows import Windows
from workbench.evaluate import Tell, silent
from workbench.kernels import dispatch
from workbench.metrics.base import measure
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.opening import load_trained, reopen
from workbench.run import InUse, RunError, RunFolder
from workbench.run_text import require_same_text, text_of
from workbench.shards import forget
from workbench.start import NOTE, note, parent_run, put
from workbench.train.checkpoint import CheckpointError, Unreadable, read
from workbench.train.float8 import require, told
from workbench.train.loop import Trainer
from workbench.train.machine import choose_device, choose_precision, settle
from workbench.train.parallel import Parallel, join, leave
from workbench.watching import evaluators_of, shown


def create(resolved: Resolved, root: Path | str = "runs") -> RunFolder:
    """The run folder of a recipe: made, or the one it has."""
    plugins = [plugin.path for plugin in resolved.plugins]
    return RunFolder.create(resolved.name, resolved.hash, root, resolved.text(), plugins)


def evaluated(run: RunFolder, resolved: Resolved) -> bool:
    """Whether the run's own figures are of its last checkpoint, by this sampler and these evaluations."""
    return run.holds(run.results, resolved.measured)


def finish(
    run: RunFolder,
    resolved: Resolved,
    cache: Path | str | None = None,
    measure_it: bool = True,
    packing: Progress | None = None,
    tell: Tell = silent,
) -> bool:
    """Train what is not trained, then evaluate what is not evaluated; true in the process that leads.

    Figures by another sampler or other evaluations that were the run's own stay in its folder, and are taken up from
    there when they are asked for again.
    """
    lead = train(run, resolved, cache, packing, tidy=True)
    if lead and measure_it and not evaluated(run, resolved):
        if (kept := run.figures(resolved.measured)) is not None:
            _make_own(run, Results.from_data(read_json(kept), str(kept)))
        else:
            evaluate(run.path, cache, tell, packing)
    return lead


def train(
    run: RunFolder,
    resolved: Resolved,
    cache: Path | str | None = None,
    tell: Progress | None = None,
    quiet: bool = False,
    tidy: bool = False,
) -> bool:
    """Train a run to its end, from its last whole checkpoint where there is one; a finished run is left as it is.

    One that has lost the checkpoint of its last step, or whose is damaged, is trained there again.

    Under torchrun every process calls it; true in the one that goes on with evaluation. ``tidy``: remove a folder that
    was made for this run, where it fails before its text is packed. Nobody else may know of it, as a grid's workers do.

    Raises:
        Interrupted: a signal came; everything is saved.
        WorkbenchError: anything a user can mend, with the remedy.
    """
    parallel = join(resolved.data["train"]["device"])
    try:
        with held(run, parallel, tidy):
            if not trained(run):
                if resolved.hash != run.hash:
                    raise RunError(
                        f"{run.resolved} is not the recipe that this run was begun with (hash {resolved.hash}, then "
                        f"{run.hash}): undo the change, or train it as a recipe of its own"
                    )
                settings = assemble.train_settings(resolved)
                device = choose_device(settings.device, parallel.local)
                require(settings.float8, settings.float8_emulated, device)
                settings.parallel.require(parallel.world, *choose_precision(settings.precision, device))
                parent = parent_run(resolved, run)
                data = text_of(run, resolved, cache, tell, parallel, parent)
                trainer(run, resolved, data, parallel, quiet, parent).fit()
    finally:
        leave()
    return parallel.lead


def trained(run: RunFolder) -> bool:
    """Whether a run is trained to its end, and still has the weights of it.

    Raises:
        CheckpointError: they cannot be read now.
    """
    return run.finished and stands(run)


def stands(run: RunFolder) -> bool:
    """Whether a trained run still has the weights of its last step, as they were written: those it is measured with.

    Its optimizer is not asked for. A finished run is not gone on with: more steps are another recipe, hence another
    run, and a recipe that begins with its weights (`start`) takes those alone.

    Raises:
        CheckpointError: they cannot be read now.
    """
    try:
        read(run.ckpt / f"step-{int(run.read_status().get('step') or 0):08d}", ("model", "ema"))
    except Unreadable:
        raise
    except CheckpointError:
        return False
    return True


def trainer(
    run: RunFolder,
    resolved: Resolved,
    data: Prepared,
    parallel: Parallel | None = None,
    quiet: bool = False,
    parent: RunFolder | None = None,
) -> Trainer:
    """The trainer of a run, with the recipe's evaluations that have a cadence.

    ``parent``: the run whose weights it begins with, where it has no checkpoint of its own yet.
    """
    settings = assemble.train_settings(resolved)
    settle(settings.threads)
    model = assemble.model(resolved, data.tokenizer)
    if settings.unigram_start:
        assemble.start_at_unigram(model, data.train.counts())
    if parent is not None:
        begun = put(resolved, parent, model.backbone)
        if parallel is None or parallel.lead:
            write_json(run.path / NOTE, begun)
    model.process.begin(model.backbone)
    assemble.watch_first_pass(model.backbone)
    rng = assemble.streams(resolved)
    train_meta = data.meta["train"]
    made = Trainer(
        model.shell,
        model.process,
        Windows(data.train, settings.batch, resolved.data["seed"]),
        settings,
        rng,
        run,
        bytes_per_token=train_meta["bytes"] / max(1, train_meta["tokens"]) * model.process.loss_is_text,
        hparams=resolved.data,
        parallel=parallel,
        quiet=quiet,
        evaluators=evaluators_of(resolved, model, data, rng),
    )
    return made


def evaluate(
    path: Path | str,
    cache: Path | str | None = None,
    tell: Tell = silent,
    packing: Progress | None = None,
) -> Results:
    """Run the evaluations without a cadence (all, where every one has one) and keep ``results.json``.

    A metric that fails is reported in its cell and fails nothing else.

    Raises:
        WorkbenchError: the run cannot be opened, its data cannot be prepared.
    """
    run, resolved = reopen(path)
    results = examine(run, resolved, cache, tell, packing)
    _make_own(run, results)
    forget_shards(run, results)
    return results


def _make_own(run: RunFolder, results: Results) -> None:
    run.keep(results)
    with suppress(InUse), run.locked():  # whoever trains it on, or has just evaluated it, says so in its status
        if run.finished:  # a look at a run that is still to be trained on does not end it
            run.mark("evaluated")


def forget_shards(run: RunFolder, results: Results) -> None:
    """Remove the pieces of a finished evaluation; where a cell failed they stay, for the evaluation that mends it."""
    if not any(value.error for value in results.values):
        forget(run.shards)


def evaluate_as(
    path: Path | str,
    overrides: Iterable[str],
    cache: Path | str | None = None,
    tell: Tell = silent,
    packing: Progress | None = None,
) -> Results:
    """Measure a run by another sampler or other evaluations; kept as ``measured/<hash>.json``, as a grid's cells are.

    Raises:
        WorkbenchError: as `evaluate`; a setting that would make another training.
    """
    run, before = reopen(path)
    resolved = reopen(path, overrides)[1]
    if resolved.hash != before.hash:
        raise RunError("evaluating changes the sampler and what is measured; train a recipe with the other settings")
    results = examine(run, resolved, cache, tell, packing)
    run.measured.mkdir(exist_ok=True)
    write_json(run.measured / f"{resolved.measured}.json", results.as_data())
    return results


def examine(
    run: RunFolder,
    resolved: Resolved,
    cache: Path | str | None = None,
    tell: Tell = silent,
    packing: Progress | None = None,
) -> Results:
    """Measure, and keep nothing. A metric that fails is reported in its cell and fails nothing else."""
    opened, settings = load_trained(run, resolved), assemble.train_settings(resolved)
    began = time.monotonic()
    data = assemble.prepare(resolved, cache, packing, run.path)
    require_same_text(run, data)
    every = assemble.evaluations(resolved)
    chosen = {name: one for name, one in every.items() if not one.every} or every
    examiner = opened.examiner(data)
    values: list[Value] = []
    lowered = told(settings.float8, settings.float8_emulated)
    samples: list[str] = []
    real: list[str] = []
    for evaluation in chosen.values():
        evidence = examiner.evidence(evaluation, tell)
        drawn, held_out, failed = shown(evaluation, evidence)
        values += [*measure(evaluation.metrics, evidence), *failed]
        samples, real = drawn or samples, held_out or real
    return Results(
        recipe=run.hash,
        name=resolved.name,
        run=run.path.name,
        process=resolved.data["process"]["type"],
        values=values,
        samples=samples,
        real=real,
        provenance={
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "step": opened.step,
            "measured": resolved.measured,
            **({"trained_in": lowered} if lowered else {}),
            "weights": "averaged" if resolved.data["train"]["ema"] else "last",
            "device": f"{opened.device}, {opened.precision}",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "seed": resolved.data["seed"],
            "evaluations": list(chosen),
            "seconds": round(time.monotonic() - began, 1),
            "kernels": dispatch.report(),
            "data": data.meta,
            **note(run),
        },
    )
