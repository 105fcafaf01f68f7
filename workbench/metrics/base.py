"""The contract of a metric: evidence in, named values with intervals out; and the section that asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench.core.bounds import Count, Natural
from workbench.core.errors import Problem, WorkbenchError
from workbench.core.part import Part, Section
from workbench.core.secrets import without_secrets
from workbench.metrics.asking import Asking
from workbench.metrics.evidence import Continued, Cost, Drawn, Evidence, HeldOut, MissingEvidence, Texts
from workbench.metrics.judge import Judge
from workbench.metrics.sets import EvalSet, Protocol
from workbench.metrics.solving import Solving
from workbench.metrics.timing import Timing
from workbench.metrics.value import Better, Value

if TYPE_CHECKING:
    from workbench.core.node import Node

HeldOutPart = Literal["all", "selection", "comparison"]
"""What an evaluation sees of the held-out text."""

__all__ = [
    "Continued", "Cost", "Drawn", "Evaluation", "Evidence", "HeldOut", "HeldOutPart", "Metric", "MissingEvidence",
    "Prompts", "Texts", "measure", "needed", "reason_of",
]  # fmt: skip


class Metric(Part, ABC, kind="metric"):
    """A figure, or a family of figures, of a trained model.

    ``better``: which way is better, where that can be said. ``needs``: the entries of `Evidence` it reads. One that
    reads ``continuations`` gives each of its columns once for every kind of prompt, named ``<column>_<prompt>``; one
    that reads ``timings`` once for every size of batch, ``<column>_b<batch>``; one of ``answers`` once for every task;
    one of ``sets`` for every set, named ``<column>_<set>_<protocol>``.
    """

    better: ClassVar[Better] = "neither"
    needs: ClassVar[frozenset[str]] = frozenset()

    def columns(self) -> tuple[str, ...]:
        """Names of the values it gives: one, its own, unless said otherwise."""
        return (self.type_name,)

    @abstractmethod
    def __call__(self, evidence: Evidence) -> list[Value]:
        """The values, one for each of `columns` (and prompt). Pure: the same evidence gives the same values."""


class Prompts(Section):
    """What a run is asked to continue: the first tokens of held-out blocks, or both ends of them.

    Settings:
        lengths: tokens given, each a kind of prompt of its own (``k25``).
        infill: tokens given at the start and at the end with the gap between to be filled; empty fills none.
        total: tokens of a sequence, prompt included; 0 takes a block's length.
        count: prompts, from blocks evenly spread over the held-out text and the same for every run.
        each: sequences drawn for each prompt.
    """

    def __init__(
        self,
        lengths: Sequence[Count] = (1, 5, 10, 25, 50, 100),
        infill: Sequence[Count] = (),
        total: Natural = 0,
        count: Count = 64,
        each: Count = 5,
    ) -> None:
        """Keep the settings."""
        self.total, self.count, self.each = total, count, each
        self.lengths, self.infill = tuple(lengths), tuple(infill)

    def ends(self) -> dict[str, tuple[int, int]]:
        """Tokens given at the start and at the end, by the prompt's name."""
        named = {f"k{length}": (length, 0) for length in self.lengths}
        return named | ({"infill": (self.infill[0], self.infill[1])} if self.infill else {})

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """Prompts that leave nothing to write, do not fit a block, or that the sampler cannot condition on."""
        yield from super().misfits(node, root)
        lengths, infill, total = (node.settings[name] for name in ("lengths", "infill", "total"))
        data, sampler = root.find("data"), root.find("sampler")
        block = data.settings["length"] if data is not None else None
        if block is not None and total > block:
            yield Problem(f"{node.path}.total", f"{total} tokens, and a block has {block}; take total: {block}, or 0")
        whole = total or block
        if infill and len(infill) != 2:
            yield Problem(f"{node.path}.infill", "two numbers are due, tokens given at the start and at the end")
        if not lengths and not infill:
            yield Problem(f"{node.path}.lengths", "no prompts at all; give lengths: [25], say")
        for name, given in (("lengths", max(lengths, default=0)), ("infill", sum(infill))):
            if whole is not None and given >= whole:
                message = f"{given} tokens given of {whole} leave nothing to write; give fewer, or a larger total"
                yield Problem(f"{node.path}.{name}", message)
        part: Any = None if sampler is None else sampler.part
        if infill and part is not None and part.conditions != "anywhere":
            message = f"sampler {part.type_name!r} continues prefixes only and fills no gaps; leave infill out"
            yield Problem(f"{node.path}.infill", message)


REMEDIES: Mapping[str, tuple[str, str, str]] = {
    "samples": ("samples", "measures samples and none are drawn", "samples: 64, say"),
    "judge": ("judge", "asks a judge and there is none", "judge: smollm2, say"),
    "continuations": ("prompts", "measures what is made of prompts and there are none", "prompts: {}"),
    "attempts": ("solving", "measures attempts at puzzles and none are made", "solving: {}"),
    "timings": ("timing", "measures timed draws and none are made", "timing: {}"),
    "answers": ("asking", "measures downstream tasks and none are asked", "asking: {tasks: [my_task]}"),
    "sets": ("sets", "measures evaluation sets and there are none", "sets: {lambada: {type: lambada, path: FILE}}"),
}
"""Entry of the evidence → the setting that gathers it, what a metric does with it, what to set."""


class Evaluation(Section):
    """One evaluation of a recipe: what is measured, on how much, how often.

    Settings:
        metrics: what to measure.
        blocks: held-out blocks whose likelihood is measured; 0 takes all of them.
        draws: noise draws a block, where the likelihood is a bound.
        samples: sequences to draw; 0 draws none.
        batch: blocks or sequences handled at a time.
        every: steps between evaluations while training; 0 evaluates once, at the end.
        judge: a language model that reads the samples; metrics that ask one say so.
        prompts: held-out text to be continued, for metrics of conditional generation.
        solving: how held-out puzzles are attempted, on a corpus that has a checker.
        timing: draws that are timed alone, for latency.
        asking: downstream tasks that are asked.
        sets: evaluation sets whose likelihood is measured, by a name of your choice.
        protocol: how their rows become blocks, and which tokens count; stated wherever there are sets.
        tokens: of each set, in blocks evenly spread over it; 0 takes all of them.
        part: of the held-out text: all of it; ``selection``, the first quarter, where settings are chosen; or
            ``comparison``, the rest, where what was chosen is compared.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("judge", "prompts", "solving", "timing", "asking", "sets", "protocol")),
        "tokens": 0,
        "part": "all",
    }
    usual: ClassVar[Mapping[str, Any]] = {
        "metrics": [{"type": "bits_per_byte"}, {"type": "unigram_bits_per_byte"}],
    }

    def __init__(
        self,
        metrics: list[Metric],
        blocks: Natural = 0,
        draws: Count = 1,
        samples: Natural = 0,
        batch: Count = 64,
        every: Natural = 0,
        judge: Judge | None = None,
        prompts: Prompts | None = None,
        solving: Solving | None = None,
        timing: Timing | None = None,
        asking: Asking | None = None,
        sets: dict[str, EvalSet] | None = None,
        protocol: Protocol | None = None,
        tokens: Natural = 0,
        part: HeldOutPart = "all",
    ) -> None:
        """Keep the settings."""
        self.timing, self.asking = timing, asking
        self.metrics, self.judge, self.prompts, self.solving = metrics, judge, prompts, solving
        self.sets, self.protocol, self.tokens, self.part = sets, protocol, tokens, part
        self.blocks, self.draws, self.samples, self.batch, self.every = blocks, draws, samples, batch, every

    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Names of the kinds of what is gathered in kinds, by entry of the evidence."""
        protocol = self.protocol.type_name if self.protocol is not None else ""
        return {
            "continuations": () if self.prompts is None else tuple(self.prompts.ends()),
            "timings": () if self.timing is None else tuple(f"b{batch}" for batch in self.timing.batches),
            "answers": () if self.asking is None else self.asking.tasks,
            "sets": tuple(f"{name}_{protocol}" for name in self.sets or ()),
        }

    @classmethod
    def misfits(cls, node: Node, root: Node) -> Iterator[Problem]:
        """A metric that looks at what is not gathered: one problem for each setting that would gather it."""
        yield from super().misfits(node, root)
        for entry, (setting, does, remedy) in REMEDIES.items():
            asking = [metric.part for metric in node.settings["metrics"] if entry in metric.part.needs]
            if asking and not node.settings[setting]:
                path = f"{node.path}.{setting}" if node.path else setting
                yield Problem(path, f"{asking[0].type_name} {does}; set {remedy}")
        if node.settings["sets"] and node.settings["protocol"] is None:
            path = f"{node.path}.protocol" if node.path else "protocol"
            yield Problem(path, "figures on sets say by which protocol they were measured; set protocol: sedd, say")


def owed(metric: Metric, kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of the values that a metric gives: its columns, once for every kind of what it reads.

    ``kinds``: names of kinds by entry of the evidence (`Evaluation.kinds`).
    """
    for entry, names in kinds.items():
        if entry in metric.needs and names:
            return [f"{column}_{name}" for name in names for column in metric.columns()]
    return list(metric.columns())


def needed(metrics: Iterable[Metric]) -> frozenset[str]:
    """The entries of `Evidence` that these metrics read."""
    return frozenset().union(*(metric.needs for metric in metrics))


def measure(metrics: Iterable[Metric], evidence: Evidence) -> list[Value]:
    """All values of all metrics. A metric that raises is reported in its cells and fails nothing else."""
    values: list[Value] = []
    for metric in metrics:
        try:
            values += metric(evidence)
        except Exception as error:
            due = owed(metric, evidence.kinds)
            values += [Value(name, None, better=metric.better, error=reason_of(error)) for name in due]
    return values


def reason_of(error: Exception) -> str:
    """Why there is no figure, for its cell."""
    return without_secrets(str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}")
