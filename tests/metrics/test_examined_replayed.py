"""Examiners that draw by replayed passes: the same texts, recordings shared by batches, none left behind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.kernels.tape import Tape
from workbench import evaluate
from workbench.drawing import draw_texts, template
from workbench.kernels import replay
from workbench.kernels.dispatch import report
from workbench.kernels.replay import REPLAY
from workbench.metrics.timing import Timing
from workbench.opening import open_trained, reopen

ON = "train.replay=true"


@pytest.fixture
def tape(smoke, monkeypatch):
    """A recorder that is at hand on a CPU once the run is trained, and sooner whatever the clock says."""
    smoke("sedd")
    told, made = itertools.cycle([2.0, 1.0]), Tape()
    monkeypatch.setattr(replay, "seconds", lambda way, wait: next(told))
    monkeypatch.setattr(evaluate, "recorder_on", lambda device: made)
    REPLAY.forget()
    yield made
    REPLAY.forget()


def test_batches_share_recordings_and_texts_are_the_same(smoke, tape) -> None:
    opened = open_trained(smoke("sedd").path, overrides=[ON])
    net = opened.model.backbone
    examiner = opened.examiner()
    assert examiner.replay
    due = evaluate.replace(examiner, replay=False).drawn(6, 2)
    assert not tape.records
    found = examiner.drawn(6, 2)
    assert tape.records == 1 and tape.replays > 2 * found.calls
    assert np.array_equal(found.tokens_NL, due.tokens_NL) and found.calls == due.calls
    assert "forward" not in vars(net) and not any(weight.requires_grad for weight in net.parameters())
    assert "replay" in [row["picked"] for row in report() if row["operation"] == REPLAY.operation]


def test_weights_that_change_between_draws_are_those_drawn_with(smoke, tape) -> None:
    """What training does between two looks, in bf16: each draw has casts, and recordings, of its own."""
    opened = open_trained(smoke("sedd").path, overrides=[ON])
    examiner = evaluate.replace(opened.examiner(), precision="bf16")
    plain = evaluate.replace(examiner, replay=False)
    texts = []
    for _ in range(2):
        texts.append(examiner.drawn(2, 2).tokens_NL)
        assert np.array_equal(texts[-1], plain.drawn(2, 2).tokens_NL)
        for weight in opened.model.backbone.parameters():
            weight.mul_(0.8)
    assert tape.records == 2 and not np.array_equal(*texts)


def test_timed_draws_and_texts_by_command_share_them_too(smoke, tape, cache_of_the_session) -> None:
    opened, canvas = template(smoke("sedd").path, [ON])
    draw_texts(opened, canvas, 4, batch=2)
    assert tape.records == 1
    opened.examiner().timed(Timing((2,), 2))
    assert tape.records == 2


def test_it_is_asked_for_and_changes_nothing_that_is_measured(smoke, tape) -> None:
    run = smoke("sedd")
    before, after = reopen(run.path)[1], reopen(run.path, [ON])[1]
    assert (before.hash, before.measured) == (after.hash, after.measured)
    examiner = open_trained(run.path).examiner()
    examiner.drawn(4, 2)
    opened, canvas = template(run.path, [])
    draw_texts(opened, canvas, 4, batch=2)
    assert not examiner.replay and not tape.records


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU records")
def test_what_was_picked_is_told_with_its_reason(smoke) -> None:
    open_trained(smoke("sedd").path, overrides=[ON]).examiner().drawn(1, 1)
    told = [row["why"] for row in report() if row["operation"] == REPLAY.operation]
    assert told and all("CUDA only" in why for why in told)
