"""The real top level of recipes: random damage to shipped ones, and fit between their parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.damage import JUNK, damage
from workbench.core import index
from workbench.core.errors import RecipeError
from workbench.core.loading import resolve_as
from workbench.core.tree import load_tree
from workbench.recipe import Recipe, load

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke"
NAMES = ("sedd", "gpt2", "uniform")


@pytest.fixture(scope="module")
def trees():
    """The smoke recipes as plain data, every default filled in: more to damage."""
    index.import_parts()
    return {name: load(SMOKE / f"{name}.yaml").data for name in NAMES}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES), junks=st.lists(JUNK, min_size=1, max_size=3), chance=st.randoms(use_true_random=False)
)
def test_damage_ends_in_a_located_error_or_a_recipe(trees, name, junks, chance):
    data = trees[name]
    for junk in junks:
        data = damage(data, junk, chance) if isinstance(data, dict) else {"train": junk}
    if not isinstance(data, dict):
        data = {"data": data}
    if isinstance(data.get("plugins"), list):
        data["plugins"] = None  # a name of a file is no damage but a request
    try:
        found = resolve_as(Recipe, data)
    except RecipeError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.message
            assert problem.path or "names of settings" in problem.message or "nested" in problem.message
            assert "failed to check its fit" not in problem.message
    else:
        assert resolve_as(Recipe, found.data).hash == found.hash


@pytest.mark.parametrize(
    ("name", "overrides", "path", "words"),
    [
        ("sedd", ["backbone={type: gpt2}"], "backbone", ["sees 'left'", "type: transformer"]),
        ("sedd", ["backbone.causal=true"], "backbone", ["sees 'left'", "causal: false"]),
        ("gpt2", ["backbone={type: transformer}"], "backbone", ["sees 'all'", "causal: true", "type: gpt2"]),
        ("sedd", ["sampler=left_to_right"], "sampler", ["needs a NextTokenView", "What would fit: reverse"]),
        ("gpt2", ["sampler=reverse"], "sampler", ["needs a ScoreView", "What would fit: left_to_right"]),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(name, overrides, path, words):
    with pytest.raises(RecipeError) as caught:
        load(SMOKE / f"{name}.yaml", overrides)
    problem = next(problem for problem in caught.value.problems if problem.path == path)
    assert all(word in problem.message for word in words), problem.message


def test_a_causal_transformer_fits_left_to_right():
    found = load(SMOKE / "gpt2.yaml", ["backbone={type: transformer, dim: 32, heads: 2, depth: 1, causal: true}"])
    assert found.data["backbone"]["causal"] is True


def test_the_order_of_a_file_changes_no_hash():
    tree = load_tree(SMOKE / "sedd.yaml")
    assert resolve_as(Recipe, tree).hash == resolve_as(Recipe, dict(reversed(tree.items()))).hash
