"""The ``train:`` section of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from workbench.core.bounds import Count, Natural, NonNegative, Probability
from workbench.core.errors import Problem
from workbench.core.part import Section
from workbench.train.float8 import Scaling
from workbench.train.loggers import Logger, TensorBoard
from workbench.train.optim import Optimizer
from workbench.train.schedules import Schedule
from workbench.train.sharing import Sharing

if TYPE_CHECKING:
    from workbench.core.node import Node


class Train(Section):
    """How the weights are found.

    Settings:
        steps: updates of the weights.
        batch: sequences per update, over all processes.
        optimizer: how gradients become updates.
        schedule: the learning rate's course.
        parallel: what each of several processes holds, and how many they are in a grid's cell.
        accumulate: micro-batches that each process cuts its share of an update into; saves memory, costs time.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay of the averaged weights, which are what is evaluated and sampled; 0 for none.
        precision: type of the network's products; auto is bf16 on CUDA and on CPUs made for it, else fp32.
        float8: how factors in the linear maps of mixers and MLPs are scaled and rounded to 8-bit floats in training, by
            torchao (extra float8; CUDA from compute capability 8.9 on): tensorwise (fastest), rowwise,
            rowwise_with_gw_hp (a weight's gradient in full; most exact) or none. Weights stay float32, the head and
            all that σ passes through as they are; evaluation and sampling compute in precision.
        float8_emulated: round as float8 says and take the products in float32, slowly, on any device: its numbers
            without its speed.
        recompute: every n-th block keeps its inputs alone and computes its forward pass again in the backward pass (1:
            all do); less memory for a third more time at most, the same numbers. 0 for none.
        compile: compile each block of the backbone with torch.compile; the first step then takes 10–60 s. The log
            counts the graphs: more after the first updates are compiled again.
        replay: on CUDA, texts are drawn by passes that are recorded once a shape and launched as a whole (CUDA graphs),
            where that gives the same figures and was measured to be faster. false: kernel by kernel.
        device: auto, cpu, cuda, cuda:1, …
        threads: CPU threads; 0 for as many as torch chooses.
        prefetch: batches prepared ahead by a thread; 0 for none. The batches are the same.
        log_every: updates between lines of the log.
        checkpoint_every: updates between checkpoints; 0 for only at the end.
        keep: how many of the last checkpoints stay.
        best: name of a validation figure, lower is better (for example valid/bits_per_byte); its best checkpoint
            stays too. Empty for none.
        skip_nonfinite: updates that may be left out because loss or gradient is not finite; one more stops the run.
            Above 0 the loss is read at every step.
        minutes: stop after this much wall-clock time, interruptions not counted; 0 for never. The schedule still
            goes by steps.
        tensorboard: show the log in TensorBoard.
        loggers: what else shows the log while it is written; one that fails is left aside, training goes on.
        unigram_start: begin with a head whose bias says the train split's token frequencies, not equal chances; a
            short run need not spend its first hundred updates on finding them.
    """

    immaterial = frozenset(
        (
            *("device", "prefetch", "log_every", "checkpoint_every", "keep", "best", "tensorboard", "loggers"),
            *("parallel", "recompute", "replay"),
        )
    )
    neutral = {"float8": "none", "float8_emulated": False}
    usual = {"optimizer": {"type": "adamw"}, "schedule": {"type": "warmup"}, "parallel": {"type": "ddp"}}

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A batch that cannot be cut into micro-batches; a best figure of no evaluation that runs while training;
        a start at the unigram that head or readout cannot say; 8-bit floats beside a setting that says otherwise."""
        yield from super().misfits(node, root)
        batch, accumulate, best = (node.settings[name] for name in ("batch", "accumulate", "best"))
        if batch % accumulate:
            yield Problem(f"{node.path}.accumulate", f"cuts a batch of {batch} into {accumulate} unequal parts")
        evaluations = root.settings.get("evaluations")
        if best and isinstance(evaluations, Mapping):
            names = [name for name, one in evaluations.items() if one.settings.get("every")]
            if best.rpartition("/")[0] not in names:
                yield Problem(
                    f"{node.path}.best",
                    f"needs <evaluation>/<figure> of an evaluation with `every:`; found {best!r}. "
                    f"There are: {', '.join(names) or 'none'}",
                )

        lowered, emulated = node.settings["float8"] != "none", node.settings["float8_emulated"]
        if emulated and not lowered:
            yield Problem(f"{node.path}.float8_emulated", "there is nothing to emulate: float8 is none")
        if lowered and not emulated and node.settings["precision"] == "fp32":
            yield Problem(f"{node.path}.precision", "float8's products give bfloat16; take auto or bf16")
        if node.settings["unigram_start"]:
            yield from _no_unigram(f"{node.path}.unigram_start", root)

    def __init__(
        self,
        steps: Count,
        batch: Count,
        optimizer: Optimizer,
        schedule: Schedule,
        parallel: Sharing,
        accumulate: Count = 1,
        clip: NonNegative = 1.0,
        ema: Probability = 0.9999,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        float8: Scaling = "none",
        float8_emulated: bool = False,
        recompute: Natural = 0,
        compile: bool = False,
        replay: bool = False,
        device: str = "auto",
        threads: Natural = 0,
        prefetch: Natural = 2,
        log_every: Count = 20,
        checkpoint_every: Natural = 1000,
        keep: Count = 2,
        best: str = "",
        skip_nonfinite: Natural = 0,
        minutes: NonNegative = 0.0,
        tensorboard: bool = True,
        loggers: list[Logger] = (),  # type: ignore[assignment]
        unigram_start: bool = False,
    ) -> None:
        """Keep the settings: `workbench.train.loop.Trainer` reads them."""
        self.steps, self.batch, self.accumulate = steps, batch, accumulate
        self.optimizer, self.schedule, self.parallel = optimizer, schedule, parallel
        self.clip, self.ema = clip, ema
        self.precision, self.recompute, self.compile, self.device = precision, recompute, compile, device
        self.float8, self.float8_emulated = float8, float8_emulated
        self.replay, self.threads, self.prefetch = replay, threads, prefetch
        self.log_every, self.checkpoint_every, self.keep, self.best = log_every, checkpoint_every, keep, best
        self.skip_nonfinite, self.minutes = skip_nonfinite, minutes
        self.views = (*([TensorBoard()] if tensorboard else ()), *loggers)
        self.unigram_start = unigram_start


def _no_unigram(path: str, root: Node) -> Iterator[Problem]:
    """Why a recipe's network cannot begin at the frequencies of tokens."""
    backbone, process = cast("Any", root.find("backbone")), cast("Any", root.find("process"))
    if backbone is not None and not backbone.part.head_bias:
        yield Problem(path, f"the head of backbone {backbone.part.type_name!r} has no bias to set; leave it false")
    if process is not None and not process.part.says_unigram(process):
        said = process.find("readout") or process
        yield Problem(
            path,
            f"{said.part.kind} {said.part.type_name!r} cannot say the law of tokens by a constant there; leave it "
            "false, or take a readout that can",
        )
