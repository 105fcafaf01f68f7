"""Whole recipes in several processes: the same loss, update by update, as in one."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch

from workbench import assemble, experiment
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.index import import_parts
from workbench.data import section
from workbench.opening import load_trained, reopen
from workbench.processes.base import named_weights
from workbench.recipe import load
from workbench.run import RunFolder
from workbench.train.log import curve, read_log
from workbench.train.optim import AdamW, Optimizer
from workbench.train.parallel import Parallel, join, leave

SMOKE = Path(__file__).parents[1] / "recipes/smoke"
CHANGES = ["train.steps=5", "train.log_every=1", "train.tensorboard=false", "train.threads=1", "train.precision=fp32"]
NO_LOOK = "evaluations.valid.every=0"
FSDP = "train.parallel={type: fsdp}"
MORE = {"sedd": (), "blocks": (NO_LOOK,), "distill": (NO_LOOK, "process.round=3"), "hybrid": (NO_LOOK,),
        "gpt2": (NO_LOOK, "train.accumulate=2", "train.recompute=1")}  # fmt: skip
"""Beside the plain one, which is also looked at: blocks called by other names than forward, a teacher, shared mixers,
a tied head and blocks computed again."""
JOBS = {**{name: (name, [*CHANGES, *more, FSDP]) for name, more in MORE.items()}, "ddp": ("sedd", CHANGES)}
SHORT = ["train.steps=3", "train.precision=bf16"]
LOW = {"sedd": "", "blocks": "", "hybrid": ", exchange: once, free: false", "gpt2": ", exchange: once"}
"""Ways to share, beside the type that parameters are gathered in."""
PAIRS = {
    f"{name} {dtype}": (
        name, [*CHANGES, *MORE[name], *SHORT, f"train.parallel={{type: fsdp, param_dtype: {dtype}{more}}}"]
    )
    for name, more in LOW.items() for dtype in ("float32", "bfloat16")
}  # fmt: skip


def trained(folder, recipe, changes, cache, parallel=None, parent=None):
    """The run folder of a recipe, trained; a distilled one from the weights of ``parent``."""
    resolved = load(SMOKE / f"{recipe}.yaml", changes)
    run = experiment.create(resolved, folder)
    data = assemble.prepare(resolved, cache, None, run.path)
    start = parent if resolved.data["start"] else None
    experiment.trainer(run, resolved, data, parallel or Parallel(), quiet=True, parent=start).fit()
    return run


def work(rank: int, world: int, port: int, folder, cache, parent, jobs) -> None:
    """One rank, as torchrun starts it."""
    import_parts()
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    parallel = join()
    for name, (recipe, changes) in jobs.items():
        trained(folder / name, recipe, changes, cache, parallel, parent)
    leave()


def work_on_text(rank: int, world: int, port: int, folder, cache, parent, jobs) -> None:
    """One rank that trains recipes as the command does, and notes what it packs or checks, and what it fails by."""
    import_parts()
    counted = []
    pack = section.pack
    section.pack = lambda *given: counted.append(given[2]) or pack(*given)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1")
    for index, (name, (recipe, changes)) in enumerate(jobs.items()):
        counted.clear()
        os.environ["MASTER_PORT"] = str(port + index)  # each training meets anew
        resolved = load(SMOKE / f"{recipe}.yaml", changes)
        error = ""
        try:
            experiment.train(experiment.create(resolved, folder / name), resolved, cache, quiet=True)
        except WorkbenchError as failed:
            error = str(failed)
        (folder / name / f"rank{rank}.json").write_text(json.dumps({"packed": counted, "error": error}))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache_of_the_session):
    """The runs of one process, by recipe."""
    folder, runs = tmp_path_factory.mktemp("alone"), {}
    for name, more in MORE.items():
        runs[name] = trained(folder, name, [*CHANGES, *more], cache_of_the_session, parent=runs.get("sedd"))
    return runs


def worlds(tmp_path_factory, cache, alone, world, jobs, work=work):
    """The run folders of ``world`` processes, by job; all trained in one session, for starting takes longest."""
    folder = tmp_path_factory.mktemp(f"world{world}")
    for name in jobs:
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    given = (world, port, folder, cache, alone["sedd"], jobs)
    ranks = [context.Process(target=work, args=(rank, *given)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0] * world
    return {name: RunFolder(next(path.parent for path in (folder / name).glob("*/resolved.yaml"))) for name in jobs}


@pytest.fixture(scope="module")
def two(tmp_path_factory, cache_of_the_session, alone):
    return worlds(tmp_path_factory, cache_of_the_session, alone, 2, {**JOBS, **PAIRS})


@pytest.fixture(scope="module")
def four(tmp_path_factory, cache_of_the_session, alone):
    jobs = {name: JOBS[name] for name in ("sedd", "ddp", "hybrid")}
    return worlds(tmp_path_factory, cache_of_the_session, alone, 4, jobs)


def test_the_first_process_reads_the_text_for_all(tmp_path_factory, cache_of_the_session, alone):
    """What others would hash again is terabytes at scale; where it cannot be read, the others say so and end."""
    once = ["train.steps=1", "train.threads=1", "train.tensorboard=false", NO_LOOK]
    jobs = {"text": ("sedd", once), "none": ("sedd", [*once, "data.corpus={type: text, paths: [/nowhere.txt]}"])}
    runs = worlds(tmp_path_factory, cache_of_the_session, alone, 2, jobs, work_on_text)
    noted = {name: [json.loads((run.path.parent / f"rank{rank}.json").read_text()) for rank in range(2)]
             for name, run in runs.items()}  # fmt: skip
    assert noted["text"] == [{"packed": ["valid", "train"], "error": ""}, {"packed": [], "error": ""}]
    assert runs["text"].read_status()["state"] == "trained"
    assert "/nowhere.txt" in noted["none"][0]["error"]
    assert noted["none"][1] == {"packed": [], "error": "the first process could not prepare the text, and says why"}


def same_curves(one, several, names):
    before, now = read_log(one.log), read_log(several.log)
    for name in names:
        pairs = list(zip(curve(before, name), curve(now, name), strict=True))
        assert pairs
        for (step, a), (same_step, b) in pairs:
            assert step == same_step and a == pytest.approx(b, rel=2e-5, abs=2e-8), name


NAMES = ("train/loss_nats_per_token", "train/grad_norm")


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_have_the_loss_curve_of_one(alone, two, name):
    same_curves(alone[JOBS[name][0]], two[name], NAMES)


@pytest.mark.parametrize("name", LOW)
def test_gathered_in_bfloat16_it_is_the_same_training_to_the_last_bit(two, name):
    """autocast casts what products take; that it comes cast changes no loss, no gradient and no weight."""
    before, now = two[f"{name} float32"], two[f"{name} bfloat16"]
    for figure in NAMES:
        assert len(curve(read_log(now.log), figure)) == 3
        assert curve(read_log(now.log), figure) == curve(read_log(before.log), figure)
    files = [sorted(run.ckpt.glob("step-00000003/*.safetensors")) for run in (before, now)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]] and len(files[0]) == 6
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sedd", "ddp", "hybrid"])
def test_four_processes_have_the_loss_curve_of_one(alone, four, name):
    same_curves(alone[JOBS[name][0]], four[name], NAMES)


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        (["train.parallel.type=fsdp", "train.optimizer={type: whole}"], "train.parallel", "needs whole matrices"),
        (["train.parallel.processes=3"], "train.parallel.processes", "3 processes × accumulate 1 cannot share a batch"),
    ],
)
def test_what_cannot_be_shared_is_refused_while_resolving(changes, place, said, monkeypatch):
    monkeypatch.setattr(Optimizer, "registered", dict(Optimizer.registered))

    @Optimizer.register("whole")
    class Whole(AdamW):
        """One that needs whole matrices."""

        whole_matrices = True

    with pytest.raises(RecipeError, match=said) as caught:
        load(SMOKE / "sedd.yaml", changes)
    assert [problem.path for problem in caught.value.problems] == [place]


def test_it_is_the_same_run_and_one_process_opens_it(alone, two):
    """How a training is shared moves nothing: one hash, one figure while training, the same weights where it ends."""
    assert two["sedd"].hash == two["ddp"].hash == alone["sedd"].hash
    same_curves(alone["sedd"], two["sedd"], ["valid/bits_per_byte"])
    assert len(list(two["sedd"].ckpt.glob("step-00000005/ema.*-of-2.safetensors"))) == 2
    opened = [load_trained(*reopen(run.path)).model.backbone for run in (alone["sedd"], two["sedd"])]
    for (name, weight), other in zip(named_weights(opened[0]).items(), named_weights(opened[1]).values(), strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-4, atol=1e-6, msg=name)
