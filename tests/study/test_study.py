"""Studies: claims against figures whose answer is known, files with slips, one small study run whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.grid.files import SMOKE
from tests.grid.made_up import arm, run
from workbench.cli.main import main
from workbench.core.errors import RecipeError
from workbench.metrics.comparison import equivalence
from workbench.metrics.value import Units, Value
from workbench.report.contrasts import Term, contrast
from workbench.study.base import Verdict, together
from workbench.study.comparisons import Alike, LiesAbove, LiesBelow, NotAbove, NotBelow
from workbench.study.lines import BelowLine
from workbench.study.matching import DearerToMatch
from workbench.study.plan import PlannedStudy, planned
from workbench.study.trends import Falls, Rises, Wider


def value(number, se=0.1, name="x", better="lower", relation="="):
    return Value(name, number, number - 2 * se, number + 2 * se, better, n=20, se=se, relation=relation)


def arms(figures, se=0.1, **others):
    """Arms by label with figure ``x``; ``others``: further figures by name, one number an arm."""
    made = []
    for at, (label, number) in enumerate(figures.items()):
        more = {name: value(numbers[at], 0.01, name) for name, numbers in others.items()}
        made.append(arm(label, [run(label, x=value(number, se), **more)], baseline=label == "baseline"))
    return made


def answers(part, figures, se=0.1, **settings):
    return part(["x"], [label for label in figures if label != "baseline"], **settings)(arms(figures, se)).answer


def test_one_sided_claims_hold_fail_or_stay_open():
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.0}) == "holds"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 11.0}) == "does not hold"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.8}) == "open"
    assert answers(LiesAbove, {"baseline": 10.0, "a": 11.0}) == "holds"
    assert answers(LiesAbove, {"baseline": 10.0, "a": 11.0}, within=0.2) == "does not hold"  # a tenth only


def test_no_worse_needs_its_margin():
    assert answers(NotAbove, {"baseline": 10.0, "a": 10.1}, within=0.05) == "holds"
    assert answers(NotAbove, {"baseline": 10.0, "a": 10.1}) == "open"
    assert answers(NotAbove, {"baseline": 10.0, "a": 11.0}, within=0.05) == "does not hold"
    assert answers(NotBelow, {"baseline": 10.0, "a": 9.9}, within=0.05) == "holds"


def test_alike_is_shown_not_assumed():
    assert answers(Alike, {"baseline": 10.0, "a": 10.1}, within=0.05) == "holds"
    assert answers(Alike, {"baseline": 10.0, "a": 10.1}, se=1.0, within=0.05) == "open"  # none seen is no proof
    assert answers(Alike, {"baseline": 10.0, "a": 11.0}, within=0.05) == "does not hold"


@pytest.mark.parametrize("within", [0.028, 0.0295, 0.031])
def test_alike_and_equivalence_go_by_the_interval_that_is_shown(within):
    """0 ± 0.296: within 0.31, not within 0.28 nor 0.295, where two tests at 5 % each would find them alike."""
    made = arms({"baseline": 10.0, "a": 10.0}, se=0.151 / 2**0.5)
    found = contrast([Term(made[1], "x", 1.0), Term(made[0], "x", -1.0)]).estimate
    holds = Alike(["x"], ["a"], within=within)(made).answer == "holds"
    assert holds == (found.high < 10 * within) == equivalence(found, 10 * within).equivalent == (within == 0.031)


def test_all_arms_must_hold_or_one_is_enough():
    mixed = {"baseline": 10.0, "a": 9.0, "b": 11.0}
    assert answers(LiesBelow, mixed) == "does not hold"
    assert answers(LiesBelow, mixed, any=True) == "holds"
    assert answers(LiesBelow, {"baseline": 10.0, "a": 11.0, "b": 11.0}, any=True) == "does not hold"


def test_many_looks_are_adjusted_for():
    """Of forty arms that do not differ, the lowest is not taken for lower: the rate of false claims stays at 2.5 %."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        figures = {"baseline": 10.0, **{f"a{i}": 10.0 + 0.1 * rng.normal() for i in range(40)}}
        made = arms(figures, se=0.1)
        made[0] = arm("baseline", [run("baseline", x=value(10.0, 1e-9))], True)
        wrong += LiesBelow(["x"], [one.label for one in made[1:]], any=True)(made).answer == "holds"
    assert wrong <= 12  # 5 expected, binomial


def test_ratios_are_of_figures():
    found = LiesBelow(["x"], ["a"], ratio=True)(arms({"baseline": 10.0, "a": 4.0}))
    assert found.answer == "holds" and "× 0.4" in found.measured
    assert answers(LiesBelow, {"baseline": 10.0, "a": 9.0}, ratio=True, within=0.2) == "does not hold"


def test_bounds_are_told():
    bound = arm("a", [run("a", x=value(9.0, relation="≤"))])
    assert "of bounds" in LiesBelow(["x"], ["a"])([*arms({"baseline": 10.0}), bound]).measured


def test_a_slope_is_that_of_least_squares():
    figures = {"a": 5.0, "b": 4.0, "c": 2.5, "d": 2.0}
    found = Falls("x", list(figures), [1, 2, 4, 8])(arms(figures))
    slope, se = np.polyfit([0, 1, 2, 3], list(figures.values()), 1)[0], 0.1 / np.sqrt(5)
    assert found.answer == "holds"
    assert f"{slope:+.3g} ({slope - 1.96 * se:+.3g}" in found.measured
    assert Rises("x", list(figures), [1, 2, 4, 8])(arms(figures)).answer == "does not hold"
    assert Rises("x", list(figures), [1, 2, 4, 8])(arms(figures, se=5.0)).answer == "open"
    assert Rises("x", ["a", "b", "gone"], [1, 2, 4])(arms(figures)).answer == "not measured"


def test_contrasts_pair_what_shares_units():
    rng = np.random.default_rng(1)
    hard = rng.normal(10, 3, 50)
    made = []
    for label, shift in (("a", 0.0), ("b", 0.3)):
        numbers = hard + shift + rng.normal(0, 0.1, 50)
        units = Units("prompts", tuple(numbers))
        made.append(arm(label, [run(label, x=Value("x", float(numbers.mean()), se=0.42, n=50, units=units))]))
    found = contrast([Term(made[1], "x", 1.0), Term(made[0], "x", -1.0)])
    assert "in pairs" in found.how and found.estimate.se < 0.05 and found.p_above() < 1e-6
    logged = contrast([Term(made[1], "x", 1.0), Term(made[0], "x", -1.0)], log=True)
    means = [one.figure("x").value for one in made]
    assert logged.estimate.value == pytest.approx(np.log(means[1] / means[0]), abs=1e-4)


def test_a_gap_may_be_wider_in_one_figure():
    made = arms({"baseline": 4.0, "a": 5.0}, y=[4.0, 4.2])
    assert Wider("x", "y", "a")(made).answer == "holds"
    assert Wider("y", "x", "a")(made).answer == "does not hold"
    assert Wider("x", "z", "a")(made).answer == "not measured"


def test_matching_costs_what_the_cheapest_match_costs():
    claim = DearerToMatch("x", "y", ["a", "b"])
    assert claim(arms({"baseline": 5.0, "a": 9.0, "b": 8.0}, y=[1.0, 0.5, 2.0])).answer == "holds"  # none matches
    found = claim(arms({"baseline": 5.0, "a": 9.0, "b": 5.0}, y=[1.0, 0.5, 3.0]))
    assert found.answer == "holds" and "cheapest match b" in found.measured and "× 3" in found.measured
    assert claim(arms({"baseline": 5.0, "a": 5.0, "b": 4.0}, y=[1.0, 0.5, 3.0])).answer == "does not hold"


def judged(label, number, by, se=0.1):
    return arm(label, [run(label, x=replace(value(number, se), by=by), y=value(1.0, 0.01, "y"))])


def test_what_cannot_be_compared_decides_nothing():
    """Two judges, an error that is not known, an arm that is still due: no claim holds by them."""
    claim = DearerToMatch("x", "y", ["a", "b"])
    two = [judged("baseline", 5.0, "one"), judged("a", 9.0, "two"), judged("b", 9.0, "one")]
    assert claim(two).answer == "open" and "not compared: a" in claim(two).measured
    waiting = claim(two[::2])
    assert waiting.answer == "not measured" and "due: a" in waiting.measured
    bare = arms({"baseline": 5.0, "a": 5.0, "b": 5.0}, y=[1.0, 3.0, 4.0])
    for one in bare:
        one.run.results.values[1] = Value("y", one.figure("y").value, unit="s")
    assert claim(bare).answer == "open"  # seconds without an error
    for one in bare:
        one.run.results.values[1] = Value("y", one.figure("y").value, unit="calls a sequence")
    assert claim(bare).answer == "holds"  # calls are counted
    line = [judged("baseline", 9.0, "one"), judged("b", 5.0, "one"), judged("a", 3.0, "two")]
    assert BelowLine("x", "y", ["baseline", "b"], ["a"])(line).answer == "open"


def test_arms_that_are_due_leave_one_of_several_undecided():
    found = LiesBelow(["x"], ["a", "later"], any=True)(arms({"baseline": 10.0, "a": 11.0}))
    assert found.answer == "not measured"
    found = LiesBelow(["x"], ["a", "later"], any=True)(arms({"baseline": 10.0, "a": 9.0}))
    assert found.answer == "holds" and "due: later: x" in found.measured
    assert LiesBelow(["x"], ["a", "later"])(arms({"baseline": 10.0, "a": 11.0})).answer == "does not hold"


def test_a_ratio_is_lower_by_its_share():
    """Six beside ten is lower by 40 %, which is not more than 50 %."""
    figures = {"baseline": 10.0, "a": 6.0}
    assert answers(LiesBelow, figures, ratio=True, within=0.5) == "does not hold"
    assert answers(LiesBelow, figures, ratio=True, within=0.35) == "holds"
    assert answers(NotBelow, {"baseline": 10.0, "a": 9.55}, se=0.01, ratio=True, within=0.05) == "holds"


def test_a_resample_of_nothing_decides_nothing():
    """One puzzle of fifty solved: a third of all resamples have none, and no logarithm."""
    solved = [1.0] + [0.0] * 49
    made = [
        arm(label, [run(label, x=Value("x", float(np.mean(numbers)), better="higher", n=50, se=0.05,
                                       units=Units("puzzles", tuple(numbers))))], label == "baseline")
        for label, numbers in (("baseline", [1.0, 0.0] * 25), ("a", solved))
    ]  # fmt: skip
    assert LiesBelow(["x"], ["a"], ratio=True)(made).answer == "open"


def repeated(label, numbers, others):
    pairs = zip(numbers, others, strict=True)
    return arm(label, [run(label, x=value(a), y=value(b, name="y")) for a, b in pairs], baseline=label == "baseline")


def test_few_repetitions_have_students_law():
    """Two seeds with t near 2.5 hold by the normal law alone."""
    made = [repeated("baseline", [10.0, 10.0001], [1.0, 1.0]), repeated("b", [12.0, 12.0001], [2.0, 2.0])]
    made.append(repeated("a", [10.0, 10.6], [1.5, 1.5]))
    found = BelowLine("x", "y", ["baseline", "b"], ["a"])(made)
    assert found.answer == "open" and "over repetitions" in found.how
    gaps = [repeated("baseline", [10.0, 10.0], [1.0, 1.0]), repeated("a", [10.2, 10.45], [1.0, 1.001])]
    found = Wider("x", "y", "a")(gaps)
    assert found.answer == "open" and "2 repetitions" in found.how


@pytest.mark.parametrize("at", [[1, 2], [0, 1, 2], [1, 1, 2]])
def test_places_of_a_trend_are_those_of_its_arms(tmp_path, at):
    test = {"type": "falls", "figure": "unigram_entropy", "arms": ["s1", "s2", "s4"], "at": at}
    claim = {"says": "x", "question": "steps", "tests": [test]}
    with pytest.raises(RecipeError, match=r"claims\.a\.tests\[0\]\.at"):
        planned(written(tmp_path, claims={"a": claim}))


def test_several_tests_hold_together():
    holds, fails, unknown = Verdict("holds", "a"), Verdict("does not hold", "b"), Verdict("not measured", "c")
    assert together([holds, holds]).answer == "holds"
    assert together([holds, unknown]).answer == "not measured"
    assert together([holds, fails, unknown]) == Verdict("does not hold", "a; b; c")


def written(folder, **changes):
    data = {
        "candidate": str(SMOKE / "sedd.yaml"),
        "baseline": str(SMOKE / "gpt2.yaml"),
        "set": {"train.steps": 4, "evaluations": {"final": {"blocks": 4, "metrics": ["bits_per_byte"]}}},
        "questions": {
            "likelihood": {"asks": "As likely? <b>", "axes": {"arm": {"sedd": {}}}, "report": {"over": []}},
            "steps": {
                "set": {"evaluations": {"final": {"samples": 4, "metrics": ["unigram_entropy", "sampling_speed"]}}},
                "axes": {"steps": {"s1": {"sampler.steps": 1}, "s2": {"sampler.steps": 2}, "s4": {"sampler.steps": 4}}},
                "report": {"over": [], "compare": []},
            },
        },
        "claims": {
            "1-likelihood": {
                "says": "As likely as the other.", "question": "likelihood",
                "tests": [{"type": "not_above", "figures": ["bits_per_byte"], "arms": ["sedd"], "within": 0.5}],
            },
            "2-entropy": {
                "says": "Falls.", "question": "steps",
                "tests": [{"type": "falls", "figure": "unigram_entropy", "arms": ["s1", "s2", "s4"], "at": [1, 2, 4]}],
            },
        },
    }  # fmt: skip
    path = folder / "toy-study.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}, sort_keys=False), encoding="utf-8")
    return path


def test_a_study_is_the_cells_of_its_questions(tmp_path):
    found = planned(written(tmp_path))
    assert isinstance(found, PlannedStudy)
    assert [cell.name for cell in found.cells][:3] == ["likelihood: baseline", "likelihood: sedd", "steps: baseline"]
    assert len({cell.key for cell in found.cells}) == len(found.cells) == 6
    assert len({cell.resolved.hash for cell in found.cells}) == 2
    fewer = planned(tmp_path / "toy-study.yaml", ["questions.steps=null"])
    assert {cell.question for cell in fewer.cells} == {"likelihood"}
    assert list(fewer.study.claims) == ["1-likelihood"]


@pytest.mark.parametrize(
    "change, told",
    [
        (
            {"claims": {}, "questions": {"likelihood": {"axes": {"arm": {"x": {"backbone.dpth": 3}}}}}},
            "questions.likelihood.backbone",
        ),
        ({"claims": {"a": {"says": "x", "question": "likelyhood", "tests": []}}}, "Did you mean 'likelihood'"),
        ({"claims": {"a": {"says": "x", "question": "likelihood", "tests": []}}}, "one test at least"),
        (
            {"claims": {"a": {"says": "x", "question": "likelihood",
                              "tests": [{"type": "lies_below", "figures": ["x"], "arms": ["sed"]}]}}},
            "has no arm 'sed'. Did you mean 'sedd'",
        ),
        (
            {"claims": {"a": {"says": "x", "question": "likelihood",
                              "tests": [{"type": "lies_below", "figures": ["bits_per_bite"], "arms": ["sedd"]}]}}},
            "measures no figure 'bits_per_bite'. Did you mean 'bits_per_byte'",
        ),
        ({"claims": {"a": {"says": "x", "question": ["likelihood"], "tests": []}}}, "claims.a.question"),
        ({"claims": {}, "questions": {"likelihood": {"set": [1], "axes": {"arm": {"x": {}}}}}}, "likelihood.set"),
        ({"claims": {}, "questions": {"likelihood": {"axis": {}}}}, "questions.likelihood.axis"),
    ],
)  # fmt: skip
def test_slips_of_a_study_are_told_with_their_place(tmp_path, change, told):
    with pytest.raises(RecipeError) as error:
        planned(written(tmp_path, **change))
    assert told in str(error.value)


def test_questions_share_the_studys_patch_and_try_each_their_own(tmp_path):
    """A question's patch is laid over the study's; what two questions try has names of its own, or one would wait."""
    sweep = {"axes": {"arm": {"sedd": {}}}, "sweep": {"train.optimizer.lr": [0.001, 0.003]}}
    path = written(tmp_path, claims={}, questions={
        "a b": {**sweep, "set": {"evaluations": {"final": {"draws": 2}}}}, "a-b": {**sweep, "set": {"train.steps": 6}},
    })  # fmt: skip
    found = planned(path)
    (first,) = {cell.resolved.data["evaluations"]["final"]["draws"] for cell in found.cells if cell.question == "a b"}
    assert first == 2 and {cell.resolved.data["evaluations"]["final"]["blocks"] for cell in found.cells} == {4}
    keys = [cell.key for cell in found.due]
    assert len(found.trials) == 8 and len(set(keys)) == len(keys)
    assert {option.trial.key for cell in found.cells for option in cell.options} <= set(keys)


def test_a_study_runs_and_ends_in_a_page_of_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path)
    assert main(["grid", str(path), "--workers", "1"]) == 0
    (folder,) = (tmp_path / "grids").iterdir()
    claims = json.loads((folder / "claims.json").read_text())
    assert [one["claim"] for one in claims] == ["1-likelihood", "2-entropy"]
    assert {one["answer"] for one in claims} <= {"holds", "does not hold", "open"}
    page = (folder / "report.html").read_text()
    assert "As likely? &lt;b&gt;" in page and "<b>" not in page.split("<h2>As likely?")[1][:20]
    assert page.index(">Claims<") < page.index("As likely?") < page.index(">Provenance<")
    assert {"likelihood.csv", "steps.csv", "steps.tex", "report.md"} <= {file.name for file in folder.iterdir()}
    before = (folder / "claims.json").read_text()
    assert main(["report", str(path)]) == 0  # from files alone
    assert (folder / "claims.json").read_text() == before
    assert "1-likelihood" in capsys.readouterr().out
    assert main(["board", str(path), "--no-start", "--out", "board"]) == 0
    shown = {file.parent.relative_to("board").as_posix() for file in Path("board").rglob("events*")}
    assert {"00 likelihood/01 sedd/0", "01 steps/03 s4/0", "layout"} <= shown
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("samples: 4", "samples: 3"), encoding="utf-8")
    assert main(["report", str(path), str(other)]) == 0
    told = capsys.readouterr().out
    assert "6 arms in both grids. The very same figures in both: likelihood: baseline, likelihood: sedd." in told
    assert "Not measured in other: steps: baseline, steps: s1" in told


def test_below_a_line_is_at_the_same_place():
    made = arms({"baseline": 100.0, "b": 400.0, "a": 100.0, "c": 300.0, "d": 9.0}, se=1.0, y=[4.0, 5.0, 4.5, 4.5, 6.0])
    claim = BelowLine("x", "y", ["baseline", "b"], ["a"])
    found = claim(made)
    assert found.answer == "holds" and "the line 200 there: × 0.5" in found.measured  # √(100 · 400)
    assert BelowLine("x", "y", ["b", "baseline"], ["c"])(made).answer == "does not hold"
    assert BelowLine("x", "y", ["baseline", "b"], ["a", "c"])(made).answer == "does not hold"
    assert BelowLine("x", "y", ["baseline", "b"], ["d"])(made).answer == "open"  # beyond the line's ends
