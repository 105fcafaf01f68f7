"""Which cells a grid's file makes, and what it says of one that makes none."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.grid.files import SMOKE, written
from workbench.core.build import build
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.expand import expand
from workbench.grid.section import load_grid


def labels(folder, **settings):
    grid = build(load_grid(written(folder, **settings)).node)
    return [tuple(arm.labels.values()) for arm in expand(grid, folder)]


AB = {"x": {"a": {}, "b": {}}, "y": {"1": {}, "2": {}}}


def test_axes_multiply_and_the_last_runs_fastest(tmp_path):
    assert labels(tmp_path, axes=AB) == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]


def test_zipped_axes_go_together(tmp_path):
    axes = {**AB, "seed": [3, 4]}
    found = labels(tmp_path, axes=axes, zip=[["x", "seed"]])
    assert found == [("a", "1", "3"), ("a", "2", "3"), ("b", "1", "4"), ("b", "2", "4")]


def test_an_axis_varies_only_where_it_is_said_to(tmp_path):
    assert labels(tmp_path, axes=AB, only={"y": {"x": "a"}}) == [("a", "1"), ("a", "2"), ("b",)]


def test_skipped_combinations_are_left_out(tmp_path):
    assert labels(tmp_path, axes=AB, skip=[{"x": "a", "y": ["2"]}]) == [("a", "1"), ("b", "1"), ("b", "2")]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    picks=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_a_product_holds_every_combination_once(tmp_path_factory, sizes, picks):
    folder = tmp_path_factory.mktemp("grid")
    axes = {f"a{i}": {str(label): {} for label in range(size)} for i, size in enumerate(sizes)}
    found = labels(folder, axes=axes)
    product = 1
    for size in sizes:
        product *= size
    assert len(found) == len(set(found)) == product
    one = {f"a{i}": str(min(picks[i], size - 1)) for i, size in enumerate(sizes)}
    assert len(labels(folder, axes=axes, skip=[one])) == product - 1 if product > 1 else True


AXIS = st.dictionaries(st.sampled_from("abc"), st.just({}), min_size=1, max_size=3)


@st.composite
def grids(draw):
    """Axes with zips, conditions that go round nowhere, and skips."""
    axes = {name: draw(AXIS) for name in "wxyz"[: draw(st.integers(1, 4))]}
    names = list(axes)
    pairs = [[a, b] for a in names for b in names if a < b and len(axes[a]) == len(axes[b])]
    zipped = [draw(st.sampled_from(pairs))] if pairs and draw(st.booleans()) else []

    def labels_of(axis):
        return draw(st.lists(st.sampled_from(sorted(axes[axis])), min_size=1, max_size=2, unique=True))

    only = {}
    for i, axis in enumerate(names):  # only where earlier axes have some label
        if i and draw(st.booleans()):
            other = draw(st.sampled_from(names[:i]))
            only[axis] = {other: labels_of(other)}
    skip = []
    for _ in range(draw(st.integers(0, 2))):
        chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
        skip.append({axis: labels_of(axis) for axis in chosen})
    return {"axes": axes, "zip": zipped, "only": only, "skip": skip}


@given(settings=grids())
def test_expansion_is_the_product_thinned_out(tmp_path_factory, settings):
    """Against the definition: every combination, of those zipped together the equal places, conditions, skips, once."""
    axes, folder = settings["axes"], tmp_path_factory.mktemp("grid")
    due = []
    for places in itertools.product(*(range(len(arms)) for arms in axes.values())):
        at = dict(zip(axes, places, strict=True))
        if any(at[a] != at[b] for a, b in settings["zip"]):
            continue
        label = {axis: list(axes[axis])[place] for axis, place in at.items()}
        kept = {
            axis: mine for axis, mine in label.items()
            if all(label[other] in wanted for other, wanted in settings["only"].get(axis, {}).items())
        }  # fmt: skip
        if any(all(kept.get(axis) in wanted for axis, wanted in one.items()) for one in settings["skip"]):
            continue
        due += [kept] * (kept not in due)
    grid = build(load_grid(written(folder, **settings)).node)
    assert sorted(map(str, (dict(arm.labels) for arm in expand(grid, folder)))) == sorted(map(str, due))


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True), order=st.randoms(use_true_random=False))
def test_a_cells_hashes_are_of_its_settings_alone(tmp_path_factory, steps, order):
    """Whatever an axis, a label or a file is called, and in whatever order arms stand: the same work is found."""
    one, two = (tmp_path_factory.mktemp("grid") for _ in range(2))
    dotted = {"a": {str(n): {"sampler.steps": n, "train.batch": 4} for n in steps}}
    arms = [(f"s{n}", {"train": {"batch": 4}, "sampler": {"steps": n}}) for n in steps]
    order.shuffle(arms)
    found = plan(written(one, name="here", axes=dotted)), plan(written(two, name="there", axes={"b": dict(arms)}))
    assert {cell.work for cell in found[0].cells} == {cell.work for cell in found[1].cells}
    assert len({cell.resolved.hash for cell in found[0].cells}) == 1 and len(found[0].cells) == len(steps)


def test_patches_apply_in_the_order_of_the_file_and_lists_name_their_setting(tmp_path):
    axes = {"sampler.steps": [4, 8], "predictor": {"euler": {"sampler.predictor": "euler"}}}
    cells = plan(written(tmp_path, axes=axes, set={"sampler.steps": 2})).cells
    assert [cell.resolved.data["sampler"]["steps"] for cell in cells] == [4, 8]
    assert all(cell.resolved.data["sampler"]["predictor"]["type"] == "euler" for cell in cells)


def test_cells_that_differ_after_training_share_their_training(tmp_path):
    axes = {"steps": {"few": {"sampler.steps": 4}, "many": {"sampler.steps": 8}}, "seed": [0, 1]}
    cells = plan(written(tmp_path, axes=axes)).cells
    assert len({cell.resolved.hash for cell in cells}) == 2
    assert len({cell.work for cell in cells}) == len(cells) == 4


def test_the_baseline_is_repeated_over_seeds_and_takes_what_all_take(tmp_path):
    axes = {"steps": {"few": {"sampler.steps": 4}}, "seed": [0, 1]}
    file = written(tmp_path, axes=axes, baseline=str(SMOKE / "gpt2.yaml"), set={"train.steps": 7})
    rows = [cell for cell in plan(file).cells if cell.arm.baseline]
    assert [(cell.name, cell.resolved.data["seed"]) for cell in rows] == [("baseline · 0", 0), ("baseline · 1", 1)]
    assert {cell.resolved.data["train"]["steps"] for cell in plan(file).cells} == {7}


def test_an_arm_may_start_from_another_recipe(tmp_path):
    axes = {"model": {"sedd": {}, "gpt2": {"extends": str(SMOKE / "gpt2.yaml")}}}
    found = [cell.resolved.data["process"]["type"] for cell in plan(written(tmp_path, axes=axes)).cells]
    assert found == ["diffusion", "autoregressive"]


def test_the_hash_is_of_what_is_done_not_of_how_it_is_written(tmp_path):
    one = plan(written(tmp_path, axes={"s": {"a": {"sampler.steps": 4}}})).hash
    same = plan(written(tmp_path, axes={"s": {"a": {"sampler": {"steps": 4}}}})).hash
    other = plan(written(tmp_path, axes={"s": {"a": {"sampler.steps": 5}}})).hash
    assert one == same != other


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"axes": {"x": 3}}, "axes.x: an axis is a map of patches"),
        ({"axes": {"x": {"a": 3}}}, "axes.x.a: a patch is a map of settings"),
        ({"axes": {"x": [1, 1]}}, "lists a value twice"),
        ({"axes": AB, "skip": [{"z": "a"}]}, "there is no axis 'z'"),
        ({"axes": AB, "skip": [{"x": "c"}]}, "axis 'x' has no 'c'"),
        ({"axes": {**AB, "z": [1, 2, 3]}, "zip": [["x", "z"]]}, "as many arms; found x 2, z 3"),
        ({"axes": AB, "fare": {}}, "fare"),
        ({"axes": {"x": {1: {}, "1": {}}}}, "two labels that read the same"),
        ({"axes": {"x": {"a\nb": {}}}}, "cannot be printed on one line"),
        ({"axes": {"x": 3}, "skip": [{"x": "a"}]}, "axes.x: an axis is a map"),
        ({"axes": {**AB, "z": [1, 2]}, "zip": [["x", "y"], ["y", "z"]]}, "axis 'y' stands in it twice"),
        ({"axes": {}}, "axes"),
        ({"axes": {"x": {"a": {"train.optimizer.lr": float("nan")}}}}, "axes.x.a.train.optimizer.lr: nan is no number"),
        ({"axes": {"sampler.steps": [1, float("inf")]}}, r"axes.sampler.steps\[1\]: inf is no number"),
        ({"axes": AB, "set": {"train": {"ema": float("-inf")}}}, "set.train.ema: -inf is no number"),
        ({"axes": AB, "base": "a\0b"}, "base: 'a.*b' is no file's name"),
        ({"axes": {"x": {"a": {"extends": 3}}}}, "axes.x.a.extends: is the name of a file"),
        ({"axes": AB, "only": {"x": {"y": "1"}, "y": {"x": "a"}}}, "only.x: goes round: x → y → x"),
        ({"axes": AB, "only": {"x": {"x": "a"}}}, "only.x: goes round: x → x"),
        ({"axes": AB, "report": {"over": ["X"]}}, "report.over: there is no axis 'X'"),
        ({"axes": AB, "report": {"over": ["x", "x"]}}, "report.over: names axis 'x' twice"),
        ({"axes": AB, "report": {"frontiers": [{"x": "rep_2", "y": "rep_4", "along": "z"}]}}, "there is no axis 'z'"),
        (
            {"axes": AB, "report": {"over": ["x"], "frontiers": [{"x": "rep_2", "y": "rep_4", "along": "x"}]}},
            "figures are averaged over axis 'x'",
        ),
        (
            {"axes": AB, "report": {"columns": ["rep_2", "rep_5"]}},
            r"report.columns\[1\]: no cell measures a figure 'rep_5'",
        ),
        ({"axes": AB, "report": {"compare": ["mauv"]}}, r"report.compare\[0\]: no cell measures a figure 'mauv'"),
        ({"axes": AB, "report": {"frontiers": [{"x": "rep_2", "y": "rep4"}]}}, r"frontiers\[0\].y: .* mean 'rep_4'"),
    ],
)
def test_a_faulty_file_is_told_where_and_why(tmp_path, settings, said):
    with pytest.raises(RecipeError, match=said):
        plan(written(tmp_path, **settings))


def test_a_problem_of_many_cells_is_told_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        plan(written(tmp_path, axes={"sampler.stepz": [1, 2], "seed": [0, 1]}))
    assert len(caught.value.problems) == 1
    assert "every cell" in str(caught.value)


def test_axes_that_multiply_past_all_use_are_refused_before_they_are_walked(tmp_path):
    axes = {f"a{i}": {str(label): {} for label in range(4)} for i in range(20)}
    with pytest.raises(WorkbenchError, match="multiply to"):
        plan(written(tmp_path, axes=axes, only={f"a{i}": {"a0": "1"} for i in range(1, 20)}))


def test_a_grid_that_skips_everything_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="leaves no cell"):
        plan(written(tmp_path, axes={"x": {"a": {}}}, skip=[{"x": "a"}]))


def test_figures_of_metrics_that_a_cell_adds_may_be_asked_for(tmp_path):
    axes = {"m": {"few": {}, "more": {"evaluations.final.metrics": ["bits_per_byte", "perplexity"]}}}
    assert len(plan(written(tmp_path, axes=axes, report={"columns": ["perplexity", "rep_4"]})).cells) == 2


def test_files_in_patches_are_named_relative_to_the_grid(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "parent.yaml").write_text(f"extends: {os.path.relpath(SMOKE / 'sedd.yaml', tmp_path)}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    child = str(SMOKE / "distill.yaml")
    axes = {"start": {"dotted": {"start.recipe": "parent.yaml"}, "whole": {"start": {"recipe": "parent.yaml"}}}}
    one, two = plan(written(tmp_path, base=child, axes=axes)).cells
    assert one.resolved.hash == two.resolved.hash
    with pytest.raises(RecipeError, match=f"{tmp_path}/none.yaml"):
        plan(written(tmp_path, base=child, axes={"start": {"a": {"start.recipe": "none.yaml"}}}))
