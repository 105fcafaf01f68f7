"""From a trained model to evidence: held-out likelihood, samples, real text of the same size, costs.

Everything is keyed: the same blocks, noise and sample numbers for every run of one seed, so that runs are compared
on common random numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samplers.base import Canvas, Sampler, Samples
from workbench.assemble import Model
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.data.base import Corpus, Tokenizer
from workbench.data.section import Prepared
from workbench.data.storage import DataError
from workbench.data.windows import Blocks
from workbench.kernels.precision import cast_once
from workbench.kernels.replay import recorder_on, replaying
from workbench.metrics.asking import Answered, Asking
from workbench.metrics.base import (
    Continued,
    Cost,
    Drawn,
    Evaluation,
    Evidence,
    HeldOut,
    HeldOutPart,
    Prompts,
    Texts,
    needed,
)
from workbench.metrics.calibration import independent_tokens, shuffled_words, word_starts
from workbench.metrics.diversity import word_set
from workbench.metrics.solving import Attempts, Solving
from workbench.metrics.timing import Timed, Timing
from workbench.metrics.value import INDEPENDENT, SHUFFLED
from workbench.nats import Counter, spread
from workbench.sets.measuring import on_sets
from workbench.shards import Shards
from workbench.solving import attempts_at
from workbench.train.machine import name_of

EOS = "\n\n"
"""What the end of a document is shown as, to readers and to judges: an empty line."""
SELECTION = 4
"""One of so many held-out blocks serves to select."""
Tell = Callable[[str, float], None]
"""``tell(what, share done)``."""


def silent(what: str, share: float) -> None:
    """Tell nobody."""


def part_of(blocks: Blocks, part: HeldOutPart) -> Blocks:
    """The held-out blocks that an evaluation sees: all, the first quarter (``selection``), or the others.

    The two parts have no block in common, whatever else an evaluation says; a document at the cut may lie in both.

    Raises:
        DataError: there are too few to be cut.
    """
    if part == "all":
        return blocks
    cut = len(blocks) // SELECTION
    if cut == 0:
        raise DataError(f"{len(blocks)} held-out blocks cannot be cut in two parts: {SELECTION} are the least")
    return blocks.between(0, cut) if part == "selection" else blocks.between(cut, len(blocks))


@dataclass(frozen=True)
class Examiner:
    """Gathers evidence about one model. ``device`` and ``precision`` ("fp32" or "bf16") are the network's.

    Without ``data`` it draws samples and nothing else. ``ask``: who asks downstream tasks; ``shards``: where pieces of
    a likelihood are kept meanwhile; ``replay``: whether it draws by passes that are replayed where that pays.
    """

    model: Model
    data: Prepared | None
    corpus: Corpus
    sampler: Sampler
    rng: Rng
    device: torch.device
    precision: str
    cost: Cost = field(default_factory=Cost)
    ask: Callable[[Asking], Mapping[str, Answered]] | None = None
    shards: Shards = field(default_factory=Shards)
    replay: bool = False

    def evidence(self, evaluation: Evaluation, tell: Tell = silent) -> Evidence:
        """What the evaluation's metrics look at, gathered when first asked for. Weights: those in the shell now."""
        whole = self._data()
        return replace(self, data=replace(whole, valid=part_of(whole.valid, evaluation.part)))._seen(evaluation, tell)

    def _seen(self, evaluation: Evaluation, tell: Tell) -> Evidence:
        wanted, prompts = needed(evaluation.metrics), evaluation.prompts
        data = self._data()
        return Evidence(
            bound=(lambda: self.held_out(evaluation, tell)) if "bound" in wanted else None,
            samples=(lambda: self.drawn(evaluation.samples, evaluation.batch, tell)) if evaluation.samples else None,
            real=lambda: real_texts(data.valid, evaluation.samples),
            calibration=lambda: self.calibration(evaluation.samples),
            unigram=data.train.counts,
            known_words=lambda: word_set(self.corpus.documents("train")),
            cost=self.cost,
            judge=evaluation.judge,
            continuations=(lambda: self.continued(prompts, evaluation.batch, tell)) if prompts is not None else None,
            kinds=evaluation.kinds(),
            sets=(lambda: on_sets(self, evaluation, tell)) if evaluation.sets else None,
            attempts=None if (solving := evaluation.solving) is None else (lambda: self.attempted(solving, tell)),
            answers=None if (asking := evaluation.asking) is None or self.ask is None else partial(self.ask, asking),
            timings=None if (timing := evaluation.timing) is None else (lambda: self.timed(timing, tell)),
        )

    def held_out(self, evaluation: Evaluation, tell: Tell = silent) -> HeldOut:
        """−log p of held-out blocks: exact, or a bound by ``evaluation.draws`` noise draws a block."""
        blocks = self._data().valid
        chosen = spread(evaluation.blocks, len(blocks))
        bound = self.counter("bound", evaluation).nats(
            blocks[chosen], chosen, tell=lambda share: tell("held-out likelihood", share)
        )
        return HeldOut(
            nats_BK=bound.nats_BK,
            bytes_B=blocks.bytes_of(chosen),
            tokens_BL=blocks[chosen],
            kind=bound.kind,
            parts=bound.parts,
            document_B=blocks.document_of(chosen),
        )

    def counter(self, stream: str, evaluation: Evaluation) -> Counter:
        """What counts nats, with the noise of ``stream``."""
        place = f"{self.device.type}, {self.precision}"
        rng = self.rng.child(stream)
        return Counter(self.model, rng, evaluation.draws, evaluation.batch, self.autocast, place, self.shards)

    def drawn(self, count: int, batch: int, tell: Tell = silent) -> Drawn:
        """``count`` unconditional samples, ``batch`` at a time; sequence i gets the numbers of sequence i."""
        return self.filled(Canvas.blank(count, self.model.length), batch, tell)

    def calibration(self, count: int) -> dict[str, Texts]:
        """What no model wrote, made of ``count`` held-out texts: the same for every run of one seed."""
        real, tokenizer = real_texts(self._data().valid, count), self.model.tokenizer
        rng, starts_V = self.rng.child("calibration"), word_starts(tokenizer.pieces(), tokenizer.eos)
        made = {
            SHUFFLED: shuffled_words(real.tokens_NL, starts_V, rng),
            INDEPENDENT: independent_tokens(real.tokens_NL, rng),
        }
        return {name: texts_of(tokens_NL, tokenizer) for name, tokens_NL in made.items()}

    def continued(self, prompts: Prompts, batch: int, tell: Tell = silent) -> dict[str, Continued]:
        """What is made of each kind of prompt, from the same blocks for all of them.

        The e-th sequence of prompt p gets the numbers of sequence p · each + e whatever is given: kinds of prompts,
        and runs of one seed, are compared on common random numbers.
        """
        blocks, tokenizer = self._data().valid, self.model.tokenizer
        chosen = spread(prompts.count, len(blocks))
        real_PT = blocks[chosen][:, : prompts.total or None]
        found = {}
        for name, (before, after) in prompts.ends().items():
            width = real_PT.shape[1]
            if before + after >= width:
                raise WorkbenchError(f"prompts: {before + after} tokens given of {width} leave nothing to write")
            fixed = np.zeros_like(real_PT, dtype=bool)
            fixed[:, :before] = True
            fixed[:, width - after :] = True

            def heard(what: str, share: float, name: str = name) -> None:
                tell(f"continuations {name}", share)

            x_BT, fixed_BT = (torch.from_numpy(np.repeat(a, prompts.each, axis=0)) for a in (real_PT * fixed, fixed))
            canvas = Canvas(x_BT, fixed_BT, torch.arange(len(x_BT)))
            drawn = self.filled(canvas, batch, heard, "continuation")
            given = np.ascontiguousarray(np.where(fixed, real_PT, -1))
            found[name] = Continued(
                before=before,
                after=after,
                each=prompts.each,
                drawn=drawn,
                real=texts_of(real_PT, tokenizer),
                given=[tokenizer.decode(row[:before], eos=EOS) for row in real_PT],
                drawn_rest=[tokenizer.decode(row[before:], eos=EOS) for row in drawn.tokens_NL],
                real_rest=[tokenizer.decode(row[before:], eos=EOS) for row in real_PT],
                key=hashlib.sha256(tokenizer.digest().encode() + given.tobytes()).hexdigest()[:16],
            )
        return found

    def filled(self, canvas: Canvas, batch: int, tell: Tell = silent, stream: str = "sample") -> Drawn:
        """A canvas filled ``batch`` sequences at a time."""
        found: list[Samples] = []
        count = len(canvas.seq_B)
        with self.drawing():
            for start in range(0, count, batch):
                rows = slice(start, start + batch)
                piece = Canvas(canvas.x_BL[rows], canvas.fixed_BL[rows], canvas.seq_B[rows])

                def heard(share: float, done: int = start, more: int = len(piece.seq_B)) -> None:
                    tell("samples", (done + share * more) / count)

                found.append(self.draw(piece, heard, stream))
        drawn = texts_of(np.concatenate([samples.tokens_BL.numpy() for samples in found]), self.model.tokenizer)
        return Drawn(
            tokens_NL=drawn.tokens_NL,
            texts=drawn.texts,
            tokenizer=drawn.tokenizer,
            seconds=math.fsum(samples.seconds for samples in found),
            calls=float(np.mean([samples.calls for samples in found])),
            batch=batch,
            sampler=self.sampler.type_name,
            device=f"{self.device}, {self.precision}",
            machine=name_of(self.device),
        )

    def attempted(self, solving: Solving, tell: Tell = silent) -> Attempts:
        """Attempts at held-out puzzles."""
        blocks = self._data().valid
        chosen = spread(solving.instances, len(blocks))
        return attempts_at(self, solving, blocks[chosen], chosen, lambda share: tell("puzzles", share))

    def timed(self, timing: Timing, tell: Tell = silent) -> list[Timed]:
        """Draws of whole texts, timed one after another; the first of each size is not counted."""
        found = []
        for at, batch in enumerate(timing.batches):
            seconds, calls = [], 0
            with self.drawing():
                for repeat in range(timing.repeats + 1):
                    drawn = self.draw(Canvas.blank(batch, self.model.length, first=repeat * batch), stream="timing")
                    seconds.append(drawn.seconds)
                    calls = drawn.calls
                    tell("timed draws", (at + (repeat + 1) / (timing.repeats + 1)) / len(timing.batches))
            how, device = self.sampler.type_name, f"{self.device}, {self.precision}"
            where = (device, name_of(self.device))
            found.append(Timed(batch, self.model.length, seconds[1:], float(calls), how, *where))
        return found

    def draw(self, canvas: Canvas, progress: Callable[[float], None] | None = None, stream: str = "sample") -> Samples:
        """Fill a canvas. ``stream``: whose random numbers."""
        with self.drawing():
            view = self.model.process.view(self.model.shell)
            return self.sampler.draw(view, canvas, self.rng.child(stream), progress)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """`autocast`, and passes that recur replayed. Around several draws they share casts and recordings, and the
        weights stay what they are.
        """
        with self.autocast(), replaying(self.model.backbone, recorder_on(self.device) if self.replay else None):
            yield

    def _data(self) -> Prepared:
        if self.data is None:
            raise WorkbenchError("this run was opened without its data; only samples can be drawn")
        return self.data

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """No gradients, the precision that the network runs in, and its weights cast once for all inside."""
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with cast_once(self.model.shell), low:
            yield


def real_texts(blocks: Blocks, count: int) -> Texts:
    """``count`` held-out blocks as texts, evenly spread (all where there are fewer)."""
    chosen = spread(count, len(blocks))
    return texts_of(blocks[chosen], blocks.tokenizer)


def texts_of(tokens_NL: npt.NDArray[np.int64], tokenizer: Tokenizer) -> Texts:
    """Token ids beside the texts that they stand for."""
    texts = [tokenizer.decode(row, eos=EOS) for row in tokens_NL]
    return Texts(tokens_NL, texts, tokenizer=tokenizer.digest())


def cost_of(log: Sequence[Mapping[str, Any]], model: Model, device: str, machine: str) -> Cost:
    """Training's records as the log holds them; ``machine``: where it was trained."""
    speeds = [record["values"].get("train/tokens_per_second") for record in log]
    last = log[-1] if log else {}
    size = model.parameters
    return Cost(
        tokens_per_second=[float(speed) for speed in speeds if speed is not None],
        seconds=last.get("seconds"),
        tokens=last.get("tokens"),
        parameters=size.total,
        parameters_non_embedding=size.non_embedding,
        device=device,
        machine=machine,
    )
