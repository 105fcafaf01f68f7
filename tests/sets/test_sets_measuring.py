"""From a run to the figures on its sets: budgets, clusters, cells that fail, protocols that never mix, shards."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sets.files import PASSAGES, passages, wiki
from workbench import experiment
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.metrics.base import Evaluation, Evidence, measure
from workbench.metrics.comparison import paired
from workbench.metrics.likelihood import BitsPerByte
from workbench.metrics.protocols import Mdlm, Sedd, Sliding
from workbench.metrics.set_likelihood import SetLikelihood
from workbench.metrics.sets import OnSet, Rows
from workbench.nats import Counter
from workbench.opening import open_trained
from workbench.recipe import load
from workbench.sets.measuring import group_of, on_sets
from workbench.sets.published import Lambada, Ptb, WikiText2
from workbench.shards import Shards, forget, weights_digest


@pytest.fixture
def sets(tmp_path):
    wiki(tmp_path)
    passages(tmp_path)
    return {
        "wiki": WikiText2(str(tmp_path), "test", whole=False),
        "absent": Ptb(str(tmp_path / "none")),
        "lambada": Lambada(str(tmp_path), whole=False),
    }


@pytest.fixture(scope="module")
def opened(smoke):
    return {name: open_trained(smoke(name).path) for name in ("gpt2", "sedd")}


def measured(opened, sets, protocol, **settings):
    evaluation = Evaluation([SetLikelihood()], sets=sets, protocol=protocol, **settings)
    examiner = replace(opened.examiner(), shards=Shards())
    evidence = Evidence(sets=on_sets(examiner, evaluation, lambda what, share: None))
    return {value.name: value for value in measure(evaluation.metrics, evidence)}


def test_each_set_has_its_figures_and_one_that_fails_its_reason(opened, sets) -> None:
    found = measured(opened["gpt2"], sets, Sedd())
    columns = ("set_perplexity", "set_bits_per_byte", "set_nats_per_token")
    assert list(found) == [f"{column}_{name}_sedd" for name in sets for column in columns]
    for name, value in found.items():
        assert ("no file or folder" in value.error) == ("absent" in name)
    bits, nats = found["set_bits_per_byte_wiki_sedd"], found["set_nats_per_token_wiki_sedd"]
    assert bits.relation == "=" and bits.extra["se_draws"] == 0
    assert nats.extra["dropped_tokens"] == nats.extra["stream_tokens"] % 32
    assert found["set_perplexity_wiki_sedd"].value == pytest.approx(np.exp(nats.value))
    assert bits.value * bits.extra["bytes"] * np.log(2) == pytest.approx(nats.value * nats.extra["tokens"])
    assert "WikiText-2, test split, 13 lines; protocol sedd; all" in bits.method
    assert "an excerpt" in bits.note and "published by protocol sedd are of train" in bits.note


def test_a_bound_says_so_and_parts_its_error(opened, sets) -> None:
    found = measured(opened["sedd"], sets, Sedd(), draws=4)["set_perplexity_wiki_sedd"]
    assert found.relation == "≤"
    assert found.extra["se_draws"] > 0
    rest = max(found.se**2 - found.extra["se_draws"] ** 2, 0.0)  # two articles: the draws may spread by chance more
    assert found.extra["se_blocks"] == pytest.approx(rest**0.5)
    assert "4 noise draws a block" in found.method


def test_a_budget_is_spread_evenly(opened, sets) -> None:
    whole = measured(opened["gpt2"], sets, Sedd())["set_nats_per_token_lambada_sedd"]
    some = measured(opened["gpt2"], sets, Sedd(), tokens=70)["set_nats_per_token_lambada_sedd"]
    assert (some.extra["blocks"], some.extra["tokens"]) == (2, 64)
    assert some.extra["blocks_in_set"] == whole.extra["blocks"] == 5
    assert "2 (evenly spread) of 5 blocks of 32 tokens" in some.method


def test_what_wraps_a_block_counts_for_a_bound_and_not_all_of_it_left_to_right(opened, sets) -> None:
    exact, bound = (measured(opened[name], sets, Mdlm())["set_nats_per_token_wiki_mdlm"] for name in ("gpt2", "sedd"))
    blocks = exact.extra["blocks"]
    assert (exact.extra["tokens"], bound.extra["tokens"]) == (blocks * 31, blocks * 32)
    assert exact.extra["bytes"] == bound.extra["bytes"] <= blocks * 30


def test_a_sliding_window_counts_all_and_costs_no_more(opened, sets) -> None:
    """More is read before each token: of a trained model the whole set's figure is near that of packed blocks."""
    slid = measured(opened["gpt2"], sets, Sliding(stride=8))["set_nats_per_token_lambada_sliding"]
    assert slid.extra["tokens"] == slid.extra["stream_tokens"]
    packed = measured(opened["gpt2"], sets, Sedd())["set_nats_per_token_lambada_sedd"]
    assert slid.value == pytest.approx(packed.value, rel=0.1)


def test_protocols_are_never_compared(opened, sets) -> None:
    """In one column they cannot stand: it carries the protocol's name. Values are refused by their units."""
    sedd, mdlm = (measured(opened["gpt2"], sets, one) for one in (Sedd(), Mdlm()))
    assert not set(sedd) & set(mdlm)
    a, b = sedd["set_nats_per_token_lambada_sedd"], mdlm["set_nats_per_token_lambada_mdlm"]
    with pytest.raises(WorkbenchError, match=r"two protocols \(sedd and mdlm\), which are never compared"):
        paired(a, replace(b, name=a.name))
    with pytest.raises(WorkbenchError, match="two protocols"):
        paired(a, BitsPerByte()(Evidence(bound=opened_blocks()))[0])
    other = measured(opened["sedd"], sets, Sedd(), draws=2)["set_nats_per_token_lambada_sedd"]
    found = paired(a, other)
    assert found.value == pytest.approx(a.value - other.value, abs=1e-4)
    with pytest.raises(WorkbenchError, match="other units"):
        paired(a, measured(opened["gpt2"], sets, Sedd(), tokens=64)["set_nats_per_token_lambada_sedd"])


def opened_blocks():
    from workbench.metrics.base import HeldOut

    return HeldOut(np.ones((3, 1)), np.full(3, 9), np.zeros((3, 4), np.int64))


def test_groups_are_those_of_first_counted_tokens() -> None:
    rows = Rows(["ab", "", "cde"], np.array([4, 4, 7]), "toy")
    ids = [np.arange(2), np.arange(0), np.arange(3)]
    assert group_of(rows, ids, np.array([0, 2, 3, 4, 7])).tolist() == [4, 4, 4, 7, 7]


def test_a_metric_without_a_name_for_its_set_still_fits_the_contract() -> None:
    found = SetLikelihood()(Evidence(sets={"x": OnSet("mdlm", error="cut off")}))
    assert next((value.name, value.error) for value in found) == ("set_perplexity_x_mdlm", "cut off")


@pytest.mark.parametrize(
    ("recipe", "final", "what"),
    [
        ("sedd", "sets: {a: {type: text, path: x}}, metrics: [set_likelihood]", "by which protocol they were measured"),
        ("sedd", "metrics: [set_likelihood]", "measures evaluation sets and there are none"),
        ("sedd", "sets: {a: lambada}, protocol: sliding", "process 'diffusion' does not; take sedd or mdlm"),
        ("gpt2", "sets: {a: lambada}, protocol: {type: sliding, stride: 33}", "moves 33 tokens, and the run reads 32"),
        ("gpt2", "sets: {a: lambda}, protocol: sedd", "Did you mean 'lambada'"),
    ],
)
def test_what_does_not_fit_is_said_while_resolving(recipe: str, final: str, what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        load(f"recipes/smoke/{recipe}.yaml", [f"evaluations.final={{{final}}}"])


def test_a_recipe_without_sets_has_the_hash_it_had() -> None:
    plain = load("recipes/smoke/gpt2.yaml")
    sets = ["evaluations.final.sets={a: {type: text, path: x}}", "evaluations.final.protocol=sedd"]
    with_sets = load("recipes/smoke/gpt2.yaml", sets)
    assert plain.measured == load("recipes/smoke/gpt2.yaml", ["evaluations.final.tokens=0"]).measured
    assert plain.hash == with_sets.hash
    assert plain.measured != with_sets.measured


# --- shards -----------------------------------------------------------------------------------------------------


class Stopped(RuntimeError):
    """A power cut."""


def counted(opened, folder, monkeypatch, stop_after=None, **settings):
    """(nats of nine blocks of a run, how many batches the network saw)."""
    seen = []
    process = type(opened.model.process)
    plain = process.nll

    def nll(self, *args):
        if stop_after is not None and len(seen) == stop_after:
            raise Stopped
        seen.append(1)
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(process, "nll", nll)
        examiner = opened.examiner()
        examiner = replace(examiner, shards=Shards(folder, opened.model.shell, {"process": "this"}))
        counter = Counter(**vars(examiner.counter("bound", Evaluation([], batch=2, draws=2))) | settings)
        blocks = np.random.default_rng(1).integers(0, 256, (9, 32))
        try:
            return counter.nats(blocks, np.arange(9)), len(seen)
        except Stopped:
            return None, len(seen)


@pytest.mark.parametrize("name", ["gpt2", "sedd"])
def test_an_interrupted_likelihood_goes_on_where_it_stopped(opened, name, tmp_path, monkeypatch) -> None:
    due, batches = counted(opened[name], None, monkeypatch)
    assert batches == 5
    folder = tmp_path / "shards"
    assert counted(opened[name], folder, monkeypatch, stop_after=3) == (None, 3)
    found, more = counted(opened[name], folder, monkeypatch)
    assert more == 2
    assert np.array_equal(found.nats_BK, due.nats_BK)
    assert found.kind == due.kind and sorted(found.parts) == sorted(due.parts)
    assert all(np.array_equal(found.parts[part], due.parts[part]) for part in due.parts)
    assert counted(opened[name], folder, monkeypatch)[1] == 0


def test_shards_of_something_else_are_not_taken_up(opened, tmp_path, monkeypatch) -> None:
    one, folder = opened["sedd"], tmp_path / "shards"
    counted(one, folder, monkeypatch)
    assert counted(one, folder, monkeypatch, draws=3)[1] == 5
    assert counted(one, folder, monkeypatch, rng=one.examiner().rng.child("other"))[1] == 5
    assert counted(one, folder, monkeypatch, place="cuda, bf16")[1] == 5
    weight = next(one.model.shell.parameters())
    before = weights_digest(one.model.shell)
    with torch.no_grad():
        weight.mul_(1 + 1e-6)
    try:
        assert weights_digest(one.model.shell) != before
        assert counted(one, folder, monkeypatch)[1] == 5
    finally:
        with torch.no_grad():
            weight.div_(1 + 1e-6)


def test_a_damaged_shard_is_made_again(opened, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "shards"
    due, _ = counted(opened["gpt2"], folder, monkeypatch)
    files = sorted(folder.iterdir())
    files[0].write_text(files[0].read_text()[:-30])
    files[1].write_text(json.dumps({"nats": 3}))
    found, again = counted(opened["gpt2"], folder, monkeypatch)
    assert again == 2
    assert np.array_equal(found.nats_BK, due.nats_BK)
    forget(folder)
    assert not folder.exists()
    forget(folder)


def test_a_finished_evaluation_leaves_no_shards_and_one_with_a_failed_cell_does(smoke, tmp_path) -> None:
    run = smoke("gpt2")
    assert not run.shards.exists()
    passages(tmp_path)
    overrides = [
        f"evaluations.final.sets={{mine: {{type: lambada, path: '{tmp_path}', whole: false}}, no: {{type: ptb}}}}",
        "evaluations.final.protocol=sedd", "evaluations.final.metrics=[set_likelihood]", "evaluations.final.samples=0",
    ]  # fmt: skip
    results = experiment.examine(run, load(run.resolved, overrides))
    assert {value.name: bool(value.error) for value in results.values}["set_perplexity_no_sedd"]
    experiment.forget_shards(run, results)
    assert len(list(run.shards.iterdir())) == 1
    whole = replace(results, values=[value for value in results.values if not value.error])
    assert len(whole.values) == 3 and PASSAGES
    experiment.forget_shards(run, whole)
    assert not run.shards.exists()
