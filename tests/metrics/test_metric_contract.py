"""The contract: lazy evidence, cells that fail alone, values that survive JSON, every registered metric."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from workbench.core import index
from workbench.core.spec import build, misfits, resolve
from workbench.metrics import cost, diversity, likelihood
from workbench.metrics.base import (
    Cost,
    Drawn,
    Evaluation,
    Evidence,
    Metric,
    MissingEvidence,
    Texts,
    measure,
    needed,
)
from workbench.metrics.contract import CHECKS, example_evidence
from workbench.metrics.results import SCHEMA, Results, ResultsError
from workbench.metrics.value import Value

index.import_parts()
ALL = [Metric.lookup(name)(**Metric.lookup(name).example()) for name in Metric.names()]


@pytest.mark.parametrize("name", Metric.names())
def test_every_metric_meets_the_contract(name: str) -> None:
    problems = CHECKS["metric"](Metric.lookup(name))
    if any("not installed here" in problem for problem in problems):
        pytest.skip(problems[0])
    assert problems == []


class Wild(Metric):
    """Breaks every rule."""

    needs = frozenset({"bound", "soul"})
    count = 0

    def columns(self) -> tuple[str, ...]:
        return ("wild", "wilder")

    def __call__(self, evidence: Evidence) -> list[Value]:
        """Never twice the same."""
        Wild.count += 1
        return [Value("wild", float(Wild.count), low=100.0, high=101.0, error="but")]


def test_the_contract_can_be_broken() -> None:
    problems = "\n".join(CHECKS["metric"](Wild))
    for word in ("soul", "'wilder'", "differ", "outside", "no method"):
        assert word in problems
    assert "cannot be built" in CHECKS["metric"](Metric)[0]


def test_column_names_are_unique() -> None:
    names = [name for metric in ALL for name in metric.columns()]
    assert len(names) == len(set(names))


def test_evidence_is_lazy_and_made_once() -> None:
    calls = []

    def draw() -> Texts:
        calls.append(1)
        return Texts(np.zeros((2, 4), np.int64), [])

    evidence = Evidence(real=draw)
    assert not calls
    assert evidence.real is evidence.real
    assert len(calls) == 1
    with pytest.raises(MissingEvidence, match="gathers no 'samples'"):
        evidence.samples  # noqa: B018


def test_a_failing_source_is_asked_once_and_fails_its_cells_only() -> None:
    calls = []

    def broken() -> Drawn:
        calls.append(1)
        raise RuntimeError("out of memory")

    evidence = example_evidence()
    partial = Evidence(samples=broken, bound=evidence.bound, cost=evidence.cost)
    values = {value.name: value for value in measure(ALL, partial)}
    assert len(calls) == 1
    assert values["rep_4"].value is None
    assert values["rep_4"].error == "RuntimeError: out of memory"
    assert values["unigram_bits_per_byte"].error == "this evaluation gathers no 'unigram'"
    assert values["bits_per_byte"].value is not None
    assert values["train_tokens_per_second"].value == 110
    assert set(values) == {name for metric in ALL for name in metric.columns()}


def test_needed() -> None:
    due = {"bound", "samples", "real", "calibration"}
    assert needed([likelihood.BitsPerByte(), diversity.Repetition()]) == due
    assert needed([]) == frozenset()


def test_costs() -> None:
    values = {value.name: value for value in measure(ALL, example_evidence())}
    assert values["sample_tokens_per_second"].value == pytest.approx(8 * 16 / 2.0)
    assert values["network_calls"].value == 32
    assert values["parameters_non_embedding"].value == 800
    bare = measure([cost.TrainingSpeed(), cost.Parameters()], Evidence(cost=Cost()))
    assert all(value.value is None and value.error for value in bare)
    timeless = Evidence(samples=Drawn(np.zeros((2, 4), np.int64), []))
    assert "no time" in measure([cost.SamplingSpeed()], timeless)[0].error


def test_not_a_number_never_reaches_json() -> None:
    value = Value("x", float("nan"), high=float("inf"), extra={"a": np.float64(1.5), "b": np.int64(2)})
    data = json.loads(json.dumps(value.as_data(), allow_nan=False))
    assert data == {"name": "x", "value": None, "extra": {"a": 1.5, "b": 2}}


def test_results_round_trip() -> None:
    values = measure(ALL, example_evidence())
    results = Results("ab" * 8, "sedd", "sedd-abab", "diffusion", values, ["a <b>"], ["real"], {"step": 3})
    data = json.loads(json.dumps(results.as_data(), allow_nan=False))
    assert data["schema"] == SCHEMA
    again = Results.from_data(data)
    assert again == results
    assert again.value("rep_4") == next(value for value in values if value.name == "rep_4")
    assert again.value("nothing") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no results"),
        ({"schema": 99}, "schema 99"),
        ({"schema": SCHEMA}, "damaged"),
        ({"schema": SCHEMA, "values": [{"value": 1}]}, "damaged"),
        ({"schema": SCHEMA, "values": [{"name": "x", "value": "many"}]}, "damaged"),
        ({"schema": SCHEMA, "values": 3}, "damaged"),
    ],
)
def test_wrong_results_are_named(data: object, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as caught:
        Results.from_data(data, "runs/x/results.json")
    assert "runs/x/results.json" in str(caught.value)


def test_evaluation_keeps_its_settings() -> None:
    evaluation = Evaluation([likelihood.BitsPerByte()], blocks=8, samples=4, every=100)
    assert (evaluation.blocks, evaluation.draws, evaluation.samples, evaluation.every) == (8, 1, 4, 100)


def test_evaluation_resolves_from_a_recipe() -> None:
    node, problems = resolve(Evaluation, {}, "evaluations.final")
    assert not problems
    assert not list(misfits(node))
    assert [metric.columns() for metric in build(node, {}).metrics] == [
        ("bits_per_byte",),
        ("unigram_bits_per_byte",),
    ]
    asked = {"metrics": ["bits_per_byte", {"type": "repetition", "sizes": [4]}]}
    node, problems = resolve(Evaluation, asked | {"samples": 8}, "evaluations.final")
    assert not problems
    assert not list(misfits(node))
    assert build(node, {}).metrics[1].columns() == ("rep_4",)
    node, problems = resolve(Evaluation, asked, "evaluations.final")
    assert not problems
    assert [str(problem) for problem in misfits(node)] == [
        "evaluations.final.samples: repetition measures samples and none are drawn; set samples: 64, say"
    ]


def test_metrics_need_no_torch() -> None:
    code = "import sys; from workbench.metrics import contract; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
