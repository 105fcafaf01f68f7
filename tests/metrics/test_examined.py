"""A run that is evaluated: what fails is told in its cells, what is drawn by chance stands beside, once a seed."""

from __future__ import annotations

import numpy as np

from workbench import experiment
from workbench.evaluate import Examiner
from workbench.metrics.base import Evidence, MissingEvidence, measure
from workbench.metrics.contract import ByLetter
from workbench.metrics.judged import ContinuationNats
from workbench.metrics.value import INDEPENDENT, SHUFFLED
from workbench.metrics.written import ContinuationDiversity
from workbench.opening import open_trained, reopen


def test_a_sampler_that_fails_fails_its_cells_only(smoke, cache_of_the_session, monkeypatch) -> None:
    def drawn(self, *args):
        raise ZeroDivisionError("no such step")

    run = smoke("sedd")
    monkeypatch.setattr(Examiner, "drawn", drawn)
    found = experiment.examine(*reopen(run.path), cache_of_the_session)
    assert found.value("bits_per_byte").value > 0
    for name in ("unigram_entropy", "samples"):
        assert found.value(name).value is None
        assert found.value(name).error == "ZeroDivisionError: no such step"
    assert found.samples == [] and found.real == []


def test_what_no_model_wrote_is_in_the_results(smoke) -> None:
    run = smoke("sedd")
    kept = experiment.Results.from_data(experiment.read_json(run.results))
    value = kept.value("unigram_entropy")
    assert value.calibration[SHUFFLED] == value.real  # the same tokens in another order
    assert set(kept.value("rep_2").calibration) == set(kept.value("distinct_2").calibration) == {SHUFFLED, INDEPENDENT}


def test_calibration_texts_are_those_of_the_seed(smoke, cache_of_the_session) -> None:
    opened = open_trained(smoke("sedd").path)
    data = experiment.assemble.prepare(opened.resolved, cache_of_the_session, None, opened.run.path)
    first, again = (opened.examiner(data).calibration(4) for _ in range(2))
    other = open_trained(smoke("sedd").path, overrides=["seed=9"]).examiner(data).calibration(4)
    for name in (SHUFFLED, INDEPENDENT):
        assert np.array_equal(first[name].tokens_NL, again[name].tokens_NL)
        assert not np.array_equal(first[name].tokens_NL, other[name].tokens_NL)
        assert first[name].tokenizer == opened.model.tokenizer.digest()


def test_failed_continuations_name_their_columns_by_prompt() -> None:
    def broken():
        raise MissingEvidence("the sampler went away")

    found = measure(
        [ContinuationDiversity(), ContinuationNats()],
        Evidence(continuations=broken, judge=ByLetter(), kinds={"continuations": ("k1", "infill")}),
    )
    assert [value.name for value in found] == [
        "continuation_entropy_k1", "continuation_rep_2_k1", "continuation_entropy_infill", "continuation_rep_2_infill",
        "continuation_nats_k1", "continuation_nats_infill",
    ]  # fmt: skip
    assert all(value.error == "the sampler went away" for value in found)
