"""What the first process prepares may last longer than processes wait for one another."""

from __future__ import annotations

import time

import pytest

from workbench.core.errors import WorkbenchError
from workbench.train import parallel
from workbench.train.parallel import BUSY, Parallel


def test_the_others_go_on_waiting_while_the_first_is_busy(monkeypatch) -> None:
    heard = iter([BUSY, BUSY, "at last"])
    monkeypatch.setattr(parallel.dist, "broadcast_object_list", lambda said: said.__setitem__(0, next(heard)))
    assert Parallel(rank=1, world=2).told("") == "at last"
    assert next(heard, None) is None


def test_the_first_says_that_it_is_busy_until_it_is_not(monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(parallel, "BEAT", 0.01)
    monkeypatch.setattr(parallel.dist, "broadcast_object_list", lambda words: said.extend(words))
    first = Parallel(rank=0, world=2)
    with first.busy():
        while len(said) < 3:
            time.sleep(0.01)
    before = len(said)
    assert first.told("at last") == "at last" and set(said[:before]) == {BUSY}
    time.sleep(0.05)
    assert said[before:] == ["at last"]


def test_alone_nothing_is_said(monkeypatch) -> None:
    monkeypatch.setattr(parallel.dist, "broadcast_object_list", lambda words: pytest.fail("there is nobody"))
    with Parallel().busy():
        pass
    assert Parallel().told("here") == "here"


def test_a_process_that_has_ended_is_told_in_words(monkeypatch) -> None:
    def closed(words: list[str]) -> None:
        raise RuntimeError("Connection closed by peer\nand a stack")

    monkeypatch.setattr(parallel.dist, "broadcast_object_list", closed)
    with pytest.raises(WorkbenchError, match=r"has ended: Connection closed by peer$"):
        Parallel(rank=1, world=2).told("")
