"""Resolving: defaults, conversion, and all problems at once, each with its place."""

from __future__ import annotations

import pytest

from tests.core.toys import Chain, Cut, Filter, Fit, Law, Layer, Mix, Sink, Spread, Study, valid
from workbench.core.errors import RecipeError
from workbench.core.node import Node
from workbench.core.part import Maker, Section
from workbench.core.spec import build, misfits, resolve


def good(part, data) -> Node:
    node, problems = resolve(part, data)
    assert problems == []
    assert node is not None
    return node


def bad(part, data) -> dict[str, str]:
    _, problems = resolve(part, data)
    assert problems
    return {problem.path: problem.message for problem in problems}


def test_a_whole_recipe_and_its_defaults():
    data = good(Study, valid()).as_data()
    assert list(data) == ["name", "law", "fit", "tests", "seed", "plugins"]
    law = data["law"]
    assert next(iter(law)) == "type"
    assert law["pace"] == {"type": "even", "eps": 1e-3, "steps": 4}  # the chain's usual pace, with its settings
    assert law["layer"] == {"type": "mix", "heads": 2}
    assert law["dim"] == 12  # the owner's usual, a plain value
    assert law["odd"] == [1.0, 2.5]
    assert data["fit"]["rate"] == 1e-4
    assert law["filters"][1]["inner"][0]["p"] == 0.1
    assert data["tests"]["valid"]["device"] == "auto"


def test_resolved_data_resolves_to_itself():
    once = good(Study, valid()).as_data()
    assert good(Study, once).as_data() == once


@pytest.mark.parametrize(
    ("chain", "pace"),
    [("sink", {"type": "even", "eps": 1e-3, "steps": 4}), ("flat", {"type": "steep", "low": 1e-3, "high": 20.0})],
)
def test_a_siblings_usual_goes_first(chain, pace):
    assert good(Law, {"type": "spread", "chain": chain}).as_data()["pace"] == pace


def test_a_partial_node_goes_over_the_usual_one():
    law = good(Law, {"type": "spread", "chain": "sink", "pace": {"eps": "1e-2"}}).as_data()
    assert law["pace"] == {"type": "even", "eps": 1e-2, "steps": 4}
    # a type that is named stands alone, with the defaults of its signature
    law = good(Law, {"type": "spread", "chain": "sink", "pace": {"type": "even"}}).as_data()
    assert law["pace"]["steps"] == 8


def test_null_leaves_a_part_out_and_drops_an_entry():
    law = good(
        Law, {"type": "spread", "chain": None, "filters": None, "named": {"a": None, "b": {"type": "cut", "p": 0}}}
    )
    assert law.settings["chain"].part is Sink
    assert law.settings["filters"] is None
    assert list(law.settings["named"]) == ["b"]


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"fitt": {}}, "fitt", "Did you mean 'fit'?"),
        ({"law": "spraed"}, "law.type", "Did you mean 'spread'?"),
        ({"law": {"type": 3}}, "law.type", "needs the name of a toy_law; found 3"),
        ({"law": {}}, "law", "needs `type:`, the name of a toy_law. Known: spread."),
        ({"law": [1]}, "law", "or a map with its `type:`; found [1]"),
        ({"law": {"type": "spread", "vocab": 3}}, "law.vocab", "the workbench supplies 'vocab'; leave it out."),
        ({"law": {"type": "spread", "dim": 1.5}}, "law.dim", "needs an integer ≥ 1; found 1.5"),
        ({"law": {"type": "spread", "dim": True}}, "law.dim", "found true"),
        ({"law": {"type": "spread", "odd": [1, "x"]}}, "law.odd[1]", "needs a number; found 'x'"),
        ({"law": {"type": "spread", "odd": [1, True]}}, "law.odd[1]", "true or false"),
        ({"law": {"type": "spread", "odd": [float("nan")]}}, "law.odd[0]", "finite"),
        ({"law": {"type": "spread", "filters": {"type": "cut"}}}, "law.filters", "needs a list of toy_filters"),
        ({"law": {"type": "spread", "filters": ["cut"]}}, "law.filters[0].p", "needs this (a number in [0, 1))"),
        ({"law": {"type": "spread", "filters": [{"p": 1}]}}, "law.filters[0]", "needs `type:`"),
        ({"law": {"type": "spread", "named": []}}, "law.named", "needs a map from names to toy_filters"),
        ({"law": {"type": "spread", "named": {"a": {"type": "cut", "p": 1}}}}, "law.named.a.p", "in [0, 1); found 1"),
        ({"law": {"type": "spread", "named": {"a b": {}}}}, "law.named", "letters, digits"),
        ({"fit": 3}, "fit", "needs a map of settings; found 3"),
        ({"fit": {"steps": {}}}, "fit.steps", "needs an integer ≥ 1; found a map"),
        ({"fit": {"steps": 1, "device": "cup"}}, "fit.device", "'cpu'; found 'cup'. Did you mean 'cpu'?"),
        ({"fit": {"steps": 1, "loud": "perhaps"}}, "fit.loud", "true or false"),
        ({"fit": {"steps": 1, "clip": -1}}, "fit.clip", "needs a number ≥ 0 or null; found -1"),
        ({"fit": None}, "fit.steps", "fit needs this (an integer ≥ 1)."),
        ({"fit": {"steps": 1, 5: 2}}, "fit", "the names of settings are text; found 5"),
        ({"name": 2024}, "name", "needs text; found 2024 (put it in quotes)"),
        ({"seed": 1 << 200}, "seed", "integer of more than"),
        ({"seed": object()}, "seed", "no plain data but object"),
    ],
)  # fmt: skip
def test_one_problem_at_its_place(change, path, words):
    problems = bad(Study, valid() | change)
    assert words in problems[path]


def test_all_problems_come_at_once():
    data = valid() | {"sede": 1}
    data["law"] |= {"chain": "snk", "dim": 0}
    data["fit"] = {"rate": 0}
    assert set(bad(Study, data)) == {"sede", "law.chain.type", "law.dim", "fit.steps", "fit.rate"}


def test_a_missing_default_is_no_second_complaint():
    """Without its chain nobody knows the usual pace: that is one problem."""
    assert set(bad(Law, {"type": "spread", "chain": "snk"})) == {"chain.type"}


def test_missing_parts_are_named_with_what_exists():
    problems = bad(Study, {})
    assert problems["law"] == "study needs this (Law: one of spread)."
    assert problems["name"] == "study needs this (text)."


def test_data_that_goes_round_or_deep_is_refused():
    ring: dict = {}
    ring["law"] = ring
    assert "nested deeper" in bad(Study, ring)[""]
    deep: object = "cut"
    for _ in range(45):
        deep = {"type": "chain", "inner": [deep]}
    assert "nested deeper" in next(iter(bad(Filter, deep).values()))


def test_a_usual_that_never_ends_is_a_problem_not_a_recursion():
    class Knot(Section):
        usual = {"inner": {}}

    def init(self, inner) -> None:
        pass

    init.__annotations__ = {"inner": Knot}
    Knot.__init__ = init
    assert "nest deeper" in next(iter(bad(Knot, {}).values()))


def test_build_supplies_what_constructors_ask_for():
    law = build(good(Law, {"type": "spread", "filters": [{"type": "cut", "p": 0.5}]}), {"vocab": 7})
    assert isinstance(law, Spread)
    assert law.vocab == law.chain.vocab == 7
    assert isinstance(law.filters[0], Cut)
    assert law.named is None
    # makers: fresh parts, with what the owner says (place) and the owner's settings (dim)
    assert [layer.place for layer in law.layers] == [0, 1, 2]
    assert {layer.dim for layer in law.layers} == {12}
    assert len({id(layer) for layer in law.layers}) == 3


def test_building_without_what_is_wanted_says_so():
    with pytest.raises(RecipeError, match=r"toy_chain 'sink' cannot be built: nobody supplies vocab"):
        build(good(Chain, "sink"))
    maker = Maker(Mix, lambda extra: build(good(Layer, "mix"), extra))
    with pytest.raises(RecipeError, match="place"):
        maker(dim=3)


def test_find_and_walk():
    root = good(Study, valid())
    assert root.find("law.chain").part is Sink
    assert root.find("law.filters[1].inner[0]").settings["p"] == 0.1
    assert root.find("tests.valid").part is Fit
    assert root.find("law.filters[9]") is root.find("nothing.at.all") is root.find("name") is None
    assert [node.path for node in root.walk()][:4] == ["", "law", "law.pace", "law.chain"]


def test_misfits_are_asked_of_every_part():
    data = valid()
    data["law"]["dim"] = 401
    root = good(Study, data)
    assert [str(problem) for problem in misfits(root)] == ["law.dim: is too wide for this batch"]
    # in a tree with holes, what cannot be asked is passed over
    data["fit"]["batch"] = "x"
    node, problems = resolve(Study, data)
    assert [problem.path for problem in problems] == ["fit.batch"]
    assert misfits(node, tuple(problems)) == []


def test_a_check_that_fails_is_an_error_with_its_place():
    root = good(Study, valid())
    root.settings.pop("fit")
    with pytest.raises(RecipeError, match="law: toy_law 'spread' failed to check its fit: KeyError"):
        misfits(root)
