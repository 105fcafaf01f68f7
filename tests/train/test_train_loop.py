"""The loop: same weights however it is cut, stopped, fed; guards; what it logs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from tests.train.toy import LENGTH, Ticks, ToyProcess, ToyWindows, settings, trainer
from workbench.core.errors import WorkbenchError
from workbench.core.part import settings as settings_of
from workbench.train import stopping
from workbench.train.base import Evaluator
from workbench.train.checkpoint import Checkpoints
from workbench.train.evaluating import Evaluations
from workbench.train.interrupt import Interrupted, Interrupts
from workbench.train.learner import compile_blocks
from workbench.train.log import curve, read_log
from workbench.train.machine import name_of
from workbench.train.nonfinite import NonFinite
from workbench.train.parallel import Parallel
from workbench.train.prefetch import ahead
from workbench.train.section import Train
from workbench.train.stopping import Stopping


def weights(made):
    """All weights and averages of a trainer's network, by name."""
    live = {name: p.detach().clone() for name, p in made.shell.net.named_parameters()}
    return live | {f"ema {name}": t.clone() for name, t in made.learner.ema.tensors().items()}


def same(one, two):
    """Names at which two sets of weights differ in any bit."""
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its weights and its log."""
    made = trainer(tmp_path_factory.mktemp("straight"), evaluators=[Evaluator("ticks", 20, Ticks())])
    made.fit()
    return weights(made), read_log(made.run.log)


class Signal(ToyProcess):
    """Sends this process a signal while preparing or computing a loss."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__()
        self.left, self.number = at, number

    def loss(self, shell, noised):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().loss(shell, noised)


def test_it_learns(straight):
    losses = curve(straight[1], "train/loss_nats_per_token")
    assert losses[-1][1] < 0.85 * losses[0][1]
    assert not same(straight[0], straight[0])


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_prefetch_changes_nothing(straight, tmp_path, depth):
    made = trainer(tmp_path, prefetch=depth)
    made.fit()
    assert same(weights(made), straight[0]) == []


def test_settings_that_only_look_change_nothing(straight, tmp_path):
    made = trainer(tmp_path, log_every=3, checkpoint_every=7, evaluators=[Evaluator("other", 4, Ticks())])
    made.fit()
    assert same(weights(made), straight[0]) == []


def test_accumulation_equals_the_whole_batch_to_rounding(tmp_path):
    found = []
    for name, parts in (("whole", 1), ("parts", 4)):
        made = trainer(tmp_path / name, accumulate=parts, steps=10)
        made.shell.net.dropout.p = 0.0
        made.fit()
        found.append(weights(made))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert same(*found)  # the sums really were taken in another order


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="multiple of 3"):
        trainer(tmp_path, accumulate=3)
    slices = [Parallel(rank, 2).slices(12, 3) for rank in (0, 1)]
    assert [s.start for s in slices[0] + slices[1]] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("muon", [False, True])
def test_a_signal_saves_and_the_resumed_run_is_the_same(tmp_path, straight, number, muon):
    reference = straight[0]
    if muon:
        whole = trainer(tmp_path / "whole", muon=True)
        whole.fit()
        reference = weights(whole)
    before = signal.getsignal(number)
    first = trainer(tmp_path, Signal(13, number), muon=muon)
    with pytest.raises(Interrupted, match=r"after 13 of 40 updates.*workbench train --resume") as caught:
        first.fit()
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert first.run.state == "interrupted"
    assert first.checkpoints.steps() == [10, 13]

    second = trainer(tmp_path, muon=muon)
    outcome = second.fit()
    assert (outcome.step, outcome.reason) == (40, "")
    assert outcome.tokens == 40 * 8 * LENGTH
    assert same(weights(second), reference) == []
    assert second.run.state == "trained"


def test_a_finished_run_is_not_trained_again(tmp_path):
    trainer(tmp_path).fit()
    again = trainer(tmp_path, ToyProcess(bad_steps=tuple(range(40))))
    assert again.fit().step == 40


def test_the_log_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path, straight):
    evaluators = [Evaluator("ticks", 20, Ticks())]
    with pytest.raises(Interrupted):
        trainer(tmp_path, Signal(33), evaluators).fit()
    # As if killed later than the checkpoint: lines beyond it, the last one torn.
    path = next(tmp_path.glob("*/log.jsonl"))
    text = path.read_text()
    beyond = {"step": 34, "time": 0.0, "seconds": 9.0, "tokens": 1, "values": {"train/grad_norm": 1e9}}
    path.write_text(text + json.dumps(beyond) + "\n" + '{"step": 35, "val')
    assert len(read_log(path)) == len(text.splitlines()) + 1
    trainer(tmp_path, evaluators=evaluators).fit()

    def facts(records):
        clock = ("train/tokens_per_second", "train/memory_mb")
        return [
            (r["step"], r["tokens"], {k: v for k, v in r["values"].items() if k not in clock}, r.get("buckets"))
            for r in records
            if r["step"] not in (33, 35)  # the signal's own checkpoint cuts one window in two
        ]

    assert facts(read_log(path)) == facts(straight[1])
    seconds = [record["seconds"] for record in read_log(path)]
    assert seconds == sorted(seconds)


def test_a_signal_breaks_an_evaluation_off_and_it_is_made_up_for(tmp_path, straight):
    def kill(step, shell):
        if step == 20:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            raise AssertionError("the evaluation went on")
        return {}

    first = trainer(tmp_path, evaluators=[Evaluator("early", 10, Ticks()), Evaluator("ticks", 20, kill)])
    with pytest.raises(Interrupted, match="after 20 of"):
        first.fit()
    assert first.shell.training
    again = Ticks(), Ticks()
    second = trainer(tmp_path, evaluators=[Evaluator("early", 10, again[0]), Evaluator("ticks", 20, again[1])])
    second.fit()
    assert [step for step, _ in again[0].seen] == [30, 40]
    assert [step for step, _ in again[1].seen] == [20, 40]
    assert same(weights(second), straight[0]) == []
    assert curve(read_log(second.run.log), "ticks/total") == curve(straight[1], "ticks/total")


def test_evaluators_see_the_averaged_weights_and_leave_no_trace(tmp_path):
    class Failing(Ticks):
        def __call__(self, step, shell):
            super().__call__(step, shell)
            raise RuntimeError("a broken evaluator")

    failing = Failing()
    made = trainer(tmp_path, evaluators=[Evaluator("failing", 7, failing)])
    with pytest.raises(RuntimeError, match="a broken evaluator"):
        made.fit()
    averaged = sum(float(t.double().sum()) for t in made.learner.ema.tensors().values())
    live = float(sum(p.detach().double().sum() for p in made.shell.parameters()))
    assert failing.seen[0][1] == pytest.approx(averaged, rel=1e-12)
    assert failing.seen[0][1] != pytest.approx(live, rel=1e-6)
    assert made.shell.training
    assert made.run.read_status()["state"] == "failed"
    assert "a broken evaluator" in made.run.read_status()["error"]


def test_best_is_remembered_kept_and_named(tmp_path):
    falls = {5: 3.0, 10: 1.0, 15: 2.0, 20: 1.5, 25: 1.0, 30: 4.0, 35: 4.0, 40: 4.0}
    made = trainer(
        tmp_path, evaluators=[Evaluator("valid", 5, lambda step, _: {"bits": falls[step]})], best="valid/bits", keep=1
    )
    made.fit()
    assert made.checkpoints.steps() == [10, 40]
    assert json.loads((made.run.ckpt / "best.json").read_text())["step"] == 10


def test_best_must_be_somebodys_figure(tmp_path):
    with pytest.raises(WorkbenchError, match="the evaluations are: valid"):
        trainer(tmp_path, evaluators=[Evaluator("valid", 5, Ticks())], best="vaild/bits")
    made = trainer(tmp_path, evaluators=[Evaluator("valid", 5, Ticks())], best="valid/bits")
    with pytest.raises(WorkbenchError, match="valid/total"):
        made.fit()
    with pytest.raises(WorkbenchError, match="own name"):
        Evaluations([Evaluator("a", 1, Ticks())] * 2, "", Interrupts(), True)


# --- several processes, in threads --------------------------------------------------------------------------------


def two_processes():
    """Two that agree as processes do, in threads of one; and how often they have."""
    barrier, flags, met = threading.Barrier(2, timeout=20), [0, 0], []

    class OfTwo(Parallel):
        def any(self, flag):
            flags[self.rank] = flag
            barrier.wait()
            most = max(flags)
            barrier.wait()
            met.append(self.rank)
            return most

    return (OfTwo(0, 2), OfTwo(1, 2)), met


def test_processes_agree_every_few_seconds_on_a_signal_that_one_has_got(monkeypatch):
    clock, ends = threading.local(), {}
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def work(parallel, pace):
        interrupts, clock.now = Interrupts(once=True), 1000.0 * parallel.rank
        made = Stopping(0.0, interrupts, parallel)
        for step in range(20_000):
            if parallel.rank == 1 and step == 10_001:
                interrupts.number = signal.SIGTERM
            if made.reason(step, 0.0):
                ends[parallel.rank] = (step, interrupts.number)
                return
            clock.now += pace

    both, met = two_processes()
    threads = [threading.Thread(target=work, args=(one, pace)) for one, pace in zip(both, (0.02, 0.025), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ends[0] == ends[1] and ends[0][1] == signal.SIGTERM
    assert 10_001 <= ends[0][0] <= 10_001 + stopping.EVERY / 0.02
    assert len(met) / 4 < 20 + 10_001 * 0.025 / stopping.EVERY  # two flags a time, of two processes


def test_a_further_signal_is_ignored_where_processes_are_several():
    with Interrupts(once=True).caught() as interrupts:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert interrupts.number == signal.SIGTERM


def test_what_is_last_is_what_processes_agree_on(tmp_path):
    """The time is over for all, and a signal has just come to this one alone."""
    made, lasts = trainer(tmp_path), []
    due = made.evaluations.due
    made.evaluations.due = lambda step, last: lasts.append((step, last)) or due(step, last)

    def reason(step, seconds):
        if step < 7:
            return ""
        made.interrupts.number = signal.SIGTERM
        return "the time is over"

    made.stopping.reason = reason
    with pytest.raises(Interrupted):
        made.fit()
    assert lasts[-1] == (7, True)


# --- guards -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_a_report(tmp_path):
    made = trainer(tmp_path, ToyProcess(bad_steps=(23,)))
    with pytest.raises(NonFinite, match=r"update 23: loss nan.*step-00000020.*skip_nonfinite"):
        made.fit()
    facts = json.loads((made.run.path / "nonfinite.json").read_text())
    assert facts["step"] == 23
    assert facts["sequences"] == ToyWindows().batch(23)[1].tolist()
    assert facts["last_good_checkpoint"].endswith("step-00000020")
    assert made.run.read_status()["state"] == "failed"
    assert made.checkpoints.steps() == [10, 20]
    assert all(p.isfinite().all() for p in made.shell.parameters())


def test_late_reading_finds_the_first_bad_update_and_saves_nothing_of_it(tmp_path):
    """As on a GPU, where the loss is read only when a line is due."""
    made = trainer(tmp_path, ToyProcess(bad_steps=(27, 28)), log_every=100)
    made.immediate = False
    with pytest.raises(NonFinite, match="update 27"):
        made.fit()
    assert made.step == 30
    assert made.checkpoints.steps() == [10, 20]


def test_updates_may_be_skipped_and_a_resumed_run_knows(tmp_path):
    bad = (12, 25)
    whole = trainer(tmp_path / "whole", ToyProcess(bad_steps=bad), skip_nonfinite=2)
    whole.fit()
    assert whole.skipped == [12, 25]
    assert curve(read_log(whole.run.log), "train/skipped_updates")[-1] == (40, 2)
    assert whole.learner.ema.updates == 38

    cut = Signal(22)
    cut.bad_steps = bad
    with pytest.raises(Interrupted):
        trainer(tmp_path, cut, skip_nonfinite=2).fit()
    again = trainer(tmp_path, ToyProcess(bad_steps=bad), skip_nonfinite=2)
    again.fit()
    assert again.skipped == [12, 25]
    assert same(weights(again), weights(whole)) == []

    once = trainer(tmp_path / "once", ToyProcess(bad_steps=bad), skip_nonfinite=1)
    with pytest.raises(NonFinite, match="update 25"):
        once.fit()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    made = trainer(tmp_path)

    def poison(step, shell):
        made.learner.parameters[0].data.view(-1)[0] = float("inf")
        return {}

    made.evaluations = Evaluations([Evaluator("poison", 20, poison)], "", made.interrupts, True)
    made.learner.ema.decay = 0.0  # the average must not put the good weights back
    made.learner.ema._live = []
    with pytest.raises(NonFinite, match="no checkpoint was written"):
        made.fit()
    assert made.checkpoints.steps() == [10]


def test_minutes_stop_early_and_say_so(tmp_path):
    made = trainer(tmp_path, ToyProcess(delay=0.02), steps=10_000, minutes=0.005, prefetch=0)
    outcome = made.fit()
    assert 1 < outcome.step < 200
    assert "minutes are over" in outcome.reason
    assert made.run.read_status()["reason"] == outcome.reason
    assert made.checkpoints.steps()[-1] == outcome.step
    assert made.run.finished
    assert trainer(tmp_path, steps=10_000, minutes=0.005).fit().step == outcome.step


# --- precision, compiling, prefetching --------------------------------------------------------------------------


def test_bf16_trains_and_resumes_to_the_last_bit(tmp_path):
    whole = trainer(tmp_path / "whole", precision="bf16", steps=20)
    whole.fit()
    with pytest.raises(Interrupted):
        trainer(tmp_path, Signal(7), precision="bf16", steps=20).fit()
    again = trainer(tmp_path, precision="bf16", steps=20)
    again.fit()
    assert same(weights(again), weights(whole)) == []
    assert all(p.dtype == torch.float32 for p in again.shell.parameters())


def test_precision_auto_is_declared_by_the_machine_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    made = trainer(tmp_path, precision="auto", steps=5)
    assert (made.machine.precision, made.machine.why) == ("bf16", "this CPU has AVX512-BF16")
    made.fit()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    again = trainer(tmp_path, precision="auto", steps=5)
    assert again.machine.precision == "fp32"
    again.fit()
    assert again.machine.precision == "bf16"


def test_a_checkpoint_names_the_machine_and_one_of_before_is_taken_up(tmp_path):
    made = trainer(tmp_path, steps=5)
    made.fit()
    facts = dict(made.checkpoints.load_last(["model"]).state["machine"])
    assert facts["name"] == name_of("cpu") and facts["name"].endswith(", 1 thread")
    assert made.machine.go_on(facts) == []
    assert "name another, now" in made.machine.go_on({**facts, "name": "another"})[0]
    del facts["name"]
    assert made.machine.go_on(facts) == []


def test_an_absent_device_is_a_clear_error(tmp_path):
    with pytest.raises(WorkbenchError, match=r"train\.device: 'nonsense'"):
        trainer(tmp_path, device="nonsense")


def test_blocks_are_compiled_in_place():
    compiled = []

    class Block(torch.nn.Linear):
        def compile(self):
            compiled.append(self)

    net = torch.nn.Module()
    compile_blocks(net)
    net.blocks = torch.nn.ModuleList([Block(2, 2), Block(2, 2)])
    compile_blocks(net)
    assert compiled == list(net.blocks)


@pytest.mark.parametrize("depth", [0, 3])
def test_prefetch_hands_errors_over_where_they_belong(depth):
    def make(step):
        if step == 4:
            raise KeyError("four")
        return step * step

    with ahead(make, 1, 9, depth) as items:
        assert list(itertools.islice(items, 3)) == [(1, 1), (2, 4), (3, 9)]
        with pytest.raises(KeyError, match="four"):
            next(items)
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_prefetch_ends_when_nobody_takes():
    with ahead(lambda step: step, 0, 10**9, 2) as items:
        assert next(items) == (0, 0)
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_every_setting_is_documented():
    assert [name for name, setting in settings_of(Train).items() if not setting.doc] == []
    assert settings().ema == 0.99


def test_checkpoints_state_what_they_are_of(tmp_path):
    made = trainer(tmp_path, steps=10)
    made.fit()
    found = Checkpoints(made.run.ckpt, made.run.hash).load_last()
    assert found.state["machine"]["precision"] == "fp32"
    assert found.state["ema_updates"] == 10
    assert set(found.tensors) == {"model", "ema", "optimizer"}
