"""The training loop. It never asks what it trains: batches, a process with a loss, a shell with weights.

Exactness: everything random is keyed by (seed, step), so a run that is killed and resumed on a CPU with the same
number of threads ends with the very weights of a run that was not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any

import torch

from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.processes.base import Noised, Process, Shell
from workbench.train.base import Evaluator, Folder, Outcome, Windows
from workbench.train.checkpoint import Checkpoints
from workbench.train.evaluating import Evaluations
from workbench.train.float8 import lower
from workbench.train.interrupt import Interrupted, Interrupts
from workbench.train.learner import Learner, compile_blocks, compiled_graphs
from workbench.train.log import Log, NoLog
from workbench.train.machine import Machine, memory_mb
from workbench.train.nonfinite import NonFinite, report
from workbench.train.parallel import Parallel
from workbench.train.prefetch import ahead
from workbench.train.progress import display
from workbench.train.recompute import recompute_blocks
from workbench.train.section import Train
from workbench.train.stopping import SIGNAL, Stopping
from workbench.train.stored import Checkpoint, taking_up
from workbench.train.window import Update, Window

LN2 = 0.6931471805599453


class Trainer:
    """Trains a shell's network by a process's loss and keeps it all in a run folder."""

    def __init__(
        self,
        shell: Shell,
        process: Process,
        windows: Windows,
        settings: Train,
        rng: Rng,
        run: Folder,
        evaluators: Sequence[Evaluator] = (),
        bytes_per_token: float = 0.0,
        hparams: Mapping[str, Any] | None = None,
        parallel: Parallel | None = None,
        quiet: bool = False,
    ) -> None:
        """Put the network on its device and build what steps it.

        ``bytes_per_token``: mean length of a token of the training text, for bits per byte (0: not shown).
        ``hparams``: the run's settings, nested, for loggers. ``quiet``: show no progress.

        Raises:
            WorkbenchError: the device is absent or has no 8-bit floats where they are asked for, the batch cannot be
                cut as asked, or ``best`` names nothing.
        """
        self.settings, self.process, self.windows, self.rng, self.run = settings, process, windows, rng, run
        self.bytes_per_token, self.hparams, self.parallel = bytes_per_token, hparams, parallel or Parallel()
        self.quiet = quiet or not self.parallel.lead
        self.machine = Machine(settings.device, settings.precision, settings.threads, self.parallel.local)
        self.device = self.machine.device
        self.slices = self.parallel.slices(settings.batch, settings.accumulate)
        process.place(self.device)
        self.machine.float8 = lower(shell.net, settings.float8, settings.float8_emulated, self.device)
        recompute_blocks(shell.net, settings.recompute)
        if settings.compile:
            compile_blocks(shell.net)
            process.compile_chunks()
        self.shared = settings.parallel.wrap(shell, self.device, self.parallel)
        self.shell = self.shared.shell
        self.learner = Learner(self.shell.net, settings)
        self.checkpoints = Checkpoints(run.path / "ckpt", run.hash, settings.keep, self.parallel)
        self.interrupts = Interrupts(once=self.parallel.world > 1)
        self.stopping = Stopping(settings.minutes, self.interrupts, self.parallel)
        self.evaluations = Evaluations(evaluators, settings.best, self.interrupts, self.parallel.world == 1)
        self.window = Window(self.parallel)
        self.immediate = self.device.type == "cpu" or settings.skip_nonfinite > 0  # a GPU's loss is read late
        self.step, self.tokens, self.before, self.skipped = 0, 0, 0.0, list[int]()

    def fit(self) -> Outcome:
        """Train to the last step, from the last checkpoint where there is one.

        Raises:
            Interrupted: SIGTERM or SIGINT; everything is saved.
            NonFinite: loss, gradient or weights are not finite; ``nonfinite.json`` in the run folder says where.
            CheckpointError: no checkpoint of this run can be read, or they are of another recipe.
        """
        try:
            outcome = self._fit()
        except BaseException as error:
            state = "interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed"
            with suppress(OSError):  # a full disk must not hide what went wrong
                self._mark(state, error=f"{type(error).__name__}: {error}")
            raise
        self._mark("trained", reason=outcome.reason)
        return outcome

    def _fit(self) -> Outcome:
        settings, run = self.settings, self.run
        notes = self._resume()
        settings.parallel.require(self.parallel.world, self.machine.precision, self.machine.why)
        self.began = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(self.interrupts.caught())
            self.show = stack.enter_context(display(run.path.name, self.step, settings.steps, self.quiet))
            self.log = stack.enter_context(closing(self._open_log()))
            for note in notes:
                self.show.say(note)
            self._mark("training")
            self.shell.train()
            self._make_up()
            batches = stack.enter_context(ahead(self._prepare, self.step, settings.steps, settings.prefetch))
            self._start_watch()
            reason = self.stopping.reason(self.step, self.seconds)
            while not reason and (item := next(batches, None)) is not None:
                self._update(*item)
                reason = self._look(self.stopping.reason(self.step, self.seconds))
            if self.interrupts.number:
                raise Interrupted(
                    f"stopped by a signal after {self.step} of {settings.steps} updates; all is saved in {run.path}. "
                    f"Go on with: workbench train --resume {run.path}",
                    self.interrupts.number,
                )
            self.log.finish(self.step)
            return Outcome(self.step, self.seconds, self.tokens, reason, dict(self.log.last))

    # --- an update ----------------------------------------------------------------------------------------------

    def _prepare(self, step: int) -> list[Noised]:
        """This process's micro-batches of an update, on the host (in the prefetching thread)."""
        first, last = self.slices[0].start, self.slices[-1].stop
        x0_BL, seq_B = self.windows.batch(step, slice(first, last))
        if len(x0_BL) != last - first:
            raise WorkbenchError(f"the data gave {len(x0_BL)} of the {last - first} sequences that were asked for")
        parts = [slice(part.start - first, part.stop - first) for part in self.slices]
        micros = [self.process.prepare(x0_BL[part], seq_B[part], step, self.rng) for part in parts]
        return [noised.pin() for noised in micros] if self.device.type == "cuda" else micros

    def _update(self, step: int, micros: Sequence[Noised]) -> None:
        """One update of the weights."""
        tokens = sum(noised.tokens for noised in micros)
        total = torch.zeros((), device=self.device)
        for index, noised in enumerate(micros):
            share = noised.tokens / tokens
            self._seed(step, index)
            with self.shared.quiet(last=index == len(micros) - 1):
                with self.machine.autocast():
                    loss = self.process.loss(self.shared.model, noised.to(self.device))
                (loss.nats * share).backward()
            total += loss.nats.detach() * share
            self.window.add(loss.logs, share)
        self.window.close_update(step, total, self.learner.clip())
        self.step, self.tokens = step + 1, self.tokens + tokens * self.parallel.world
        if self.immediate and not (update := self.window.last()).finite:
            self._skip(update)
        else:
            self.learner.update(step)
        self.learner.forget_gradients()
        self.process.advance(self.step, self.learner.weights)

    def _seed(self, step: int, index: int) -> None:
        """Key what torch draws (dropout) by seed, step and the global number of the micro-batch."""
        micro = self.parallel.rank * self.settings.accumulate + index
        torch.manual_seed(Rng.key(f"{self.rng.seed}/dropout/{step}/{micro}") >> 1)

    def _skip(self, update: Update) -> None:
        """Leave an update out, if the recipe allows one more."""
        self.skipped.append(update.step)
        self.window.clear()
        if len(self.skipped) > self.settings.skip_nonfinite:
            self._report(update)

    def _report(self, update: Update) -> None:
        """Say and keep what is known of a loss or gradient that is not finite, and stop."""
        steps = self.checkpoints.steps()
        good = self.checkpoints.path(steps[-1]) if steps else None
        sequences = self.windows.batch(update.step)[1].tolist()
        name = "nonfinite.json" if self.parallel.lead else f"nonfinite.{self.parallel.rank}.json"
        report(update, self.learner.rates(update.step), sequences, self.skipped, good, self.run.path / name)

    # --- looking at it ------------------------------------------------------------------------------------------

    def _look(self, reason: str) -> str:
        """After an update: log, evaluate, save, as far as they are due. Why training stops here ("": it does not)."""
        settings, done = self.settings, self.step
        last = done == settings.steps or reason not in ("", SIGNAL)  # what processes agree on, no signal of this one
        due = self.evaluations.due(done, last)
        every = settings.checkpoint_every
        saving = last or bool(reason) or (every > 0 and done % every == 0)
        if done % settings.log_every == 0 or due or saving:
            self._write_log()
        improved = self._evaluate(due)
        if self.evaluations.broken:
            reason = SIGNAL
        if saving or improved or reason:
            self._save()
        if due or saving:
            self.parallel.wait()
            self._start_watch()
        self.show.show(done, self.log.last)
        return reason

    def _write_log(self) -> None:
        """Read the window and append a line to the log. Every process calls it; the first one writes."""
        updates = self.window.updates()
        if not updates:
            return
        for update in updates:
            if not update.finite:
                self._report(update)
        reading = self.window.read()
        now, (then, before) = time.monotonic(), self.watch
        values = dict(reading.values)
        if self.bytes_per_token:
            values["train/bits_per_byte"] = values["train/loss_nats_per_token"] / LN2 / self.bytes_per_token
        values["train/lr"] = self.learner.rates(self.step - 1)[0]
        values["train/tokens_per_second"] = (self.tokens - before) / max(now - then, 1e-9)
        values["train/memory_mb"] = memory_mb(self.device)
        if self.skipped:
            values["train/skipped_updates"] = len(self.skipped)
        if self.settings.compile:
            values["train/compiled_graphs"] = compiled_graphs()
        self._start_watch()
        self.log.write(self.step, self.seconds, self.tokens, values, reading.buckets)
        self._mark("training")

    def _evaluate(self, due: Sequence[Evaluator]) -> bool:
        """Run evaluators (the first process does); whether the figure of ``train.best`` has improved."""
        if not due:
            return False
        improved = False
        with self.shared.looking(self.learner.ema) as shell:
            if shell is not None:
                precision = self.machine.autocast()
                improved = self.evaluations.run(due, self.step, shell, precision, self.log, self.seconds, self.tokens)
        return bool(self.parallel.any(int(improved)))

    def _make_up(self) -> None:
        """Run the evaluators that were due at the resumed step and were broken off."""
        due = self.evaluations.due(self.step, self.step == self.settings.steps)
        lost = sum(1 << i for i, one in enumerate(due) if self.parallel.lead and not self.log.has(one.name))
        lost = self.parallel.any(lost)  # the first process has the log
        if self._evaluate([one for i, one in enumerate(due) if lost >> i & 1]) and self.parallel.lead:
            self.checkpoints.mark_best(self.evaluations.best or {})
        self.parallel.wait()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training so far, over all sessions."""
        return self.before + time.monotonic() - self.began

    def _start_watch(self) -> None:
        """Begin a stretch that counts for tokens per second."""
        self.watch = (time.monotonic(), self.tokens)

    # --- saving, going on ----------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint, every process what it holds.

        Raises:
            NonFinite: a weight is not finite: such a checkpoint must not be written.
        """
        if self.parallel.any(int(not self.learner.finite)):
            raise NonFinite(
                "a weight is not finite, so no checkpoint was written; those before it are good. "
                "Remedies: a lower train.optimizer.lr, train.clip, train.precision: fp32."
            )
        best = self.evaluations.best
        roles, numbers = self.learner.capture()
        if kept := self.process.kept():
            roles["process"] = kept
        counts = {"seconds": self.seconds, "tokens": self.tokens, "skipped": self.skipped, "best": best}
        state = {**numbers, **counts, "machine": self.machine.facts()}
        self.checkpoints.save(self.step, roles, state, best["step"] if best else -1)
        if best and self.parallel.lead:
            self.checkpoints.mark_best(best)

    def _resume(self) -> list[str]:
        """Take up the last whole checkpoint; what to tell the reader."""
        found = self.checkpoints.load_last(cut=self.shared.cut())
        notes = [f"damaged: {text}" for text in self.checkpoints.damaged]
        if found is not None:
            notes += [f"resumed after {found.step} updates from {found.path}"]
            with taking_up(found):
                notes += self._take_up(found)
        return [*notes, str(self.machine)]

    def _take_up(self, found: Checkpoint) -> list[str]:
        """Go on from a checkpoint; where the machine differs from the one before."""
        self.learner.restore(found)
        self.process.recall(found.tensors.get("process", {}))
        self.step, self.tokens, self.before = found.step, int(found.state["tokens"]), float(found.state["seconds"])
        best, self.skipped = found.state["best"], [int(step) for step in found.state["skipped"]]
        self.evaluations.best = None if best is None else dict(best)
        return self.machine.go_on(found.state["machine"])

    def _open_log(self) -> Log | NoLog:
        made = (self.run.path / "log.jsonl", self.step, self.settings.views, self.hparams)
        return Log(*made) if self.parallel.lead else NoLog()

    def _mark(self, state: str, **facts: Any) -> None:
        if self.parallel.lead:
            self.run.mark(state, step=self.step, steps=self.settings.steps, **facts)
