"""The tables and plots of a grid's page, from figures made up."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.grid.made_up import arm, run
from workbench.grid.section import Frontier, Scaling
from workbench.metrics.value import INDEPENDENT, SHUFFLED, Value
from workbench.report import latex
from workbench.report.arms import Arm
from workbench.report.differences import compared, differences_table
from workbench.report.frontiers import frontier, judged_alike, lines, references
from workbench.report.grid_page import GridPage, csv_of, took
from workbench.report.grid_tables import arms_table, best_of, long_rows
from workbench.report.scaling import laws, scaling_plot, scaling_table


def entropy(value, real=4.0):
    return Value("unigram_entropy", value, real=real, n=8)


def bits(value, better="lower"):
    return Value("bits_per_byte", value, better=better, relation="≤")


def test_a_mean_over_repetitions_has_a_t_interval():
    figure = arm("a", [run("a0", bits_per_byte=bits(1.0)), run("a1", bits_per_byte=bits(1.2))]).figure("bits_per_byte")
    assert figure.value == pytest.approx(1.1)
    assert (figure.n, figure.relation, figure.better) == (2, "≤", "lower")
    # Student's quantile for one degree of freedom is 12.706, the standard error of the mean 0.1
    assert figure.high - figure.value == pytest.approx(12.706 * 0.1, rel=1e-3)


def test_one_repetition_keeps_its_own_interval_and_a_failed_metric_its_reason():
    one = arm("a", [run("a0", x=Value("x", 1.0, 0.5, 2.0), y=Value("y", None, error="no judge"))])
    assert (one.figure("x").low, one.figure("x").high) == (0.5, 2.0)
    assert one.figure("y").error == "no judge"
    assert one.figure("z") is None


def test_the_best_is_by_direction_or_by_nearness_to_real_text():
    arms = [
        arm("a", [run("a", bits_per_byte=bits(1.5), unigram_entropy=entropy(3.0))]),
        arm("b", [run("b", bits_per_byte=bits(1.4), unigram_entropy=entropy(4.1))]),
        arm("c", [run("c", bits_per_byte=bits(1.6), unigram_entropy=entropy(5.0))]),
    ]
    assert best_of(arms, "bits_per_byte")[0] == 1
    assert best_of(arms, "unigram_entropy") == (1, "nearest to held-out text")
    assert best_of(arms, "nothing") == (None, "")
    rows = arms_table(arms, ["bits_per_byte", "unigram_entropy"]).rows
    assert [cell.text.startswith("★") for cell in rows[1].cells] == [True, True]
    assert not any(cell.text.startswith("★") for cell in rows[0].cells)
    assert rows[-1].real and rows[-1].cells[1].text == "4.00"


def test_no_star_where_all_read_the_same():
    arms = [arm(name, [run(name, bits_per_byte=bits(1.5))]) for name in "ab"]
    assert not any(cell.text.startswith("★") for row in arms_table(arms, None).rows for cell in row.cells)


def test_an_arm_without_figures_says_why():
    table = arms_table([Arm("a", {}, False, {}, ("a · 0: failed: out of memory",)), Arm("b", {}, False, {})], None)
    assert [row.remark for row in table.rows] == ["a · 0: failed: out of memory", "no figures yet"]


def test_long_rows_hold_every_figure_once():
    arms = [arm("a", [run("a0", x=1.0, y=2.0), run("a1", x=3.0, y=4.0)], fix="a")]
    heads, rows = long_rows(arms, ["fix"])
    table = list(csv.DictReader(io.StringIO("\n".join(",".join(row) for row in [heads, *rows]))))
    assert [(row["fix"], row["repetition"], row["figure"], row["value"]) for row in table] == [
        ("a", "0", "x", "1"), ("a", "0", "y", "2"), ("a", "1", "x", "3"), ("a", "1", "y", "4"),
    ]  # fmt: skip


def test_lines_of_a_frontier_go_along_one_axis():
    arms = [arm("baseline", [run("g", x=1.0, y=1.0)], baseline=True)]
    arms += [
        arm(f"{fix}{tau}", [run("r", x=float(tau), y=2.0)], fix=fix, tau=str(tau)) for fix in "ab" for tau in (1, 2, 3)
    ]
    found = lines(arms, Frontier("x", "y", along="tau"))
    assert [(line.label, [label for _, _, label in line.points]) for line in found] == [
        ("baseline", [""]), ("a", ["1", "2", "3"]), ("b", ["1", "2", "3"]),
    ]  # fmt: skip
    assert frontier(arms, Frontier("x", "nothing"), 0) is None
    svg = frontier(arms, Frontier("x", "y", along="tau"), 0).svg
    assert svg.startswith("<svg") and "font-family: sans-serif" in svg


def test_latex_sets_what_is_special():
    shown = arms_table([arm("50 % & more_", [run("a", bits_per_byte=bits(1.5))])], None)
    text = latex.table(shown, "a_b")
    assert r"50 \% \& more\_ & $\leq$ 1.500 \\" in text
    assert r"\caption{a\_b}" in text


def test_a_bound_above_an_exact_figure_is_no_verdict():
    exact = [Value("b", v, better="lower") for v in (1.0, 1.01, 1.02)]
    base = arm("baseline", [run(f"g{i}", b=value) for i, value in enumerate(exact)], True)
    bound = [Value("b", v, better="lower", relation="≤") for v in (1.2, 1.21, 1.225)]
    above = arm("a", [run(f"a{i}", b=value) for i, value in enumerate(bound)])
    below = arm("c", [run(f"c{i}", b=replace(value, value=value.value - 0.5)) for i, value in enumerate(bound)])
    assert [one.verdict for one in compared([base, above, below], ["b"])] == ["higher (of bounds)", "better"]


def test_a_small_p_is_told_as_far_as_it_is_resolved_and_percentages_differ_in_points():
    base = arm("baseline", [run(f"g{i}", known_words=v) for i, v in enumerate((0.7, 0.71, 0.72))], True)
    above = arm("a", [run(f"a{i}", known_words=v) for i, v in enumerate((0.801, 0.811, 0.82100001))])
    cell = differences_table(compared([base, above], ["known_words"]), [base, above]).rows[0].cells[0]
    assert cell.text == "+10.1 points higher" and cell.detail.startswith("95 % interval +10.1 points to +10.1 points")
    assert "p < 1e-4, after Holm < 1e-4" in cell.detail and "80 % power: 0.0 points" in cell.detail
    near = arm("a", [run(f"a{i}", known_words=v) for i, v in enumerate((0.72, 0.745, 0.75))])
    cell = differences_table(compared([base, near], ["known_words"]), [base, near]).rows[0].cells[0]
    assert re.search(r"p 0\.0\d+, after Holm 0\.0\d+", cell.detail)


def starred(*figures):
    """Which of figures (number, relation) has the star, and the table's notes."""
    arms = [
        arm(name, [run(name, bits_per_byte=Value("bits_per_byte", value, better="lower", relation=relation))])
        for name, (value, relation) in zip("abc", figures, strict=False)
    ]
    table = arms_table(arms, None)
    return [row.label for row in table.rows if row.cells[0].text.startswith("★")], "\n".join(table.notes)


def test_a_bound_that_may_hide_a_better_figure_leaves_no_star():
    found, notes = starred((2.344, "="), (2.589, "≤"), (2.4, "="))
    assert found == [] and "No ★ for held-out bits/byte: beside the figure that reads best stands a bound" in notes
    found, notes = starred((2.344, "="), (2.3, "≤"))
    assert found == ["b"] and "No ★" not in notes, "below an exact figure a bound decides"
    found, notes = starred((2.344, "≤"), (2.3, "≤"))
    assert found == ["b"] and "Among bounds it is the best bound" in notes
    found, notes = starred((2.344, "="), (2.4, "="))
    assert found == ["a"] and "bound" not in notes and "Hover" not in notes


def judged(value, shuffled):
    return Value("judge_perplexity", value, real=20.0, calibration={SHUFFLED: shuffled})


def test_calibration_texts_are_rows_markers_and_columns():
    def one(entropy, judge):
        figure = Value("unigram_entropy", entropy, real=4.0, calibration={SHUFFLED: 4.0, INDEPENDENT: 4.5})
        return run("r", unigram_entropy=figure, judge_perplexity=judge)

    arms = [
        arm("a", [one(3.0, judged(30.0, 200.0)), one(3.2, judged(34.0, 220.0))]),
        arm("b", [one(3.5, judged(28.0, 200.0))]),
    ]
    names = ["unigram_entropy", "judge_perplexity"]
    table = arms_table(arms, names)
    found = {row.label: [cell.text for cell in row.cells] for row in table.rows if row.real}
    assert found == {
        "held-out text": ["4.00", "20"],
        "shuffled words (as for a)": ["4.00", "210"],  # the mean over repetitions
        "shuffled words (as for b)": ["4.00", "200"],
        "independent tokens": ["4.50", "–"],
    }
    assert any("Shuffled words" in note for note in table.notes)
    drawn = lines(arms, Frontier(*names))
    assert references(drawn) == {"held-out text": (4.0, 20.0), SHUFFLED: (4.0, 210.0)}
    assert SHUFFLED in frontier(arms, Frontier(*names), 0).svg
    heads, rows = long_rows(arms, [])
    assert [dict(zip(heads, row, strict=True))[SHUFFLED] for row in rows] == ["4", "200", "4", "220", "4", "200"]


def test_what_one_repetition_lacks_has_no_mean():
    both = arm("a", [run("a0", j=replace(judged(1.0, 5.0), name="j")), run("a1", j=Value("j", 2.0, real=20.0))])
    assert both.figure("j").calibration == {}


def by(value, judge, **rest):
    return Value("judge_perplexity", value, better="lower", se=1.0, n=9, by=judge, **rest)


def test_figures_by_two_judges_are_marked_and_never_subtracted():
    arms = [
        arm("baseline", [run("g", judge_perplexity=by(30.0, "small"), x=1.0)], True),
        arm("a", [run("a", judge_perplexity=by(10.0, "large"), x=1.0)]),
        arm("b", [run("b", judge_perplexity=by(20.0, "small"), x=1.0)]),
        arm("c", [run("c0", judge_perplexity=by(20.0, "small")), run("c1", judge_perplexity=by(9.0, "large"))]),
    ]
    first, second = compared(arms[:3], ["judge_perplexity"])
    assert math.isnan(first.estimate.value) and first.p is None and first.verdict == ""
    assert second.estimate.value == -10 and second.p is not None
    cells = [row.cells[0].text for row in differences_table([first, second], arms).rows]
    assert cells[0] == "not comparable" and cells[1].startswith("−10")
    assert best_of(arms[:3], "judge_perplexity") == (None, "")
    assert best_of([arms[0], arms[2]], "judge_perplexity")[0] == 1
    notes = " ".join(arms_table(arms, ["judge_perplexity"]).notes)
    assert "baseline, b by small; a by large" in notes
    assert arms[3].figure("judge_perplexity").value is None
    assert "two judges" in arms[3].figure("judge_perplexity").error and "two judges" in notes
    alike, strangers = judged_alike(arms[:3], Frontier("x", "judge_perplexity"))
    assert [one.label for one in alike] == ["baseline", "b"] and strangers == ["a"]
    caption = frontier(arms[:3], Frontier("x", "judge_perplexity"), 0).caption
    assert "by another judge or on another machine than the first: a." in caption
    several = [arm("s", [run(f"s{i}", judge_perplexity=by(20.0 + i, judge)) for i in range(2)], judge == "small")
               for judge in ("small", "large")]  # fmt: skip
    assert all(math.isnan(one.estimate.value) for one in compared(several, ["judge_perplexity"]))


def test_seconds_of_two_machines_are_not_compared_and_no_machine_is_called_a_judge():
    def timed(value, machine):
        return Value("latency_b1", value, better="lower", unit="s a batch", se=0.1, n=5, by=machine)

    arms = [
        arm("a", [run("a", latency_b1=timed(2.0, "one box"))], True),
        arm("b", [run("b", latency_b1=timed(1.0, "other box"))]),
        arm("c", [run(f"c{i}", latency_b1=timed(1.0, f"box {i}")) for i in range(2)]),
    ]
    (found,) = compared(arms[:2], ["latency_b1"])
    assert math.isnan(found.estimate.value) and "on two machines" in found.how
    assert best_of(arms[:2], "latency_b1") == (None, "")
    notes = " ".join(arms_table(arms, ["latency_b1"]).notes)
    assert "figures on other machines are not to be compared: a on one box; b on other box" in notes
    assert "on two machines" in arms[2].figure("latency_b1").error
    (bare,) = compared([arm("a", [run("a", latency_b1=timed(2.0, ""))], True), arms[1]], ["latency_b1"])
    assert math.isnan(bare.estimate.value)  # results of before name none


def grid_page_of(arms, axes):
    return GridPage("t", "", arms_table([], []), [], [], [], [], arms, axes, [], [])


def test_notes_with_breaks_stay_comments_in_latex():
    failed = [arm(name, [run(name, x=Value("x", None, error="a\n\\input{b}\nc"))]) for name in "ab"]
    text = latex.table(arms_table(failed, ["x"]), "two\nlines")
    head = text[: text.index("\\begin{table}")]
    assert "input" in head and all(line.startswith("% ") for line in head.splitlines())
    assert "\\caption{two lines}" in text


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-2+3", "@sum", "\t=1"])
def test_labels_are_no_formulas_in_a_spreadsheet(text):
    page = grid_page_of([arm(text, [run("a", x=-0.5)], fix=text)], ["fix"])
    (row,) = csv.DictReader(io.StringIO(csv_of(page)))
    assert row["relation"] == "=", "a sign alone is no formula"
    assert row["arm"] == row["fix"] == f"'{text}"
    assert row["value"] == "-0.5"


def test_an_untested_difference_stays_in_its_family():
    base = arm("baseline", [run(f"g{i}", b=v) for i, v in enumerate((1.0, 1.1, 1.2))], True)
    moved = arm("moved", [run(f"a{i}", b=v) for i, v in enumerate((1.5, 1.62, 1.7))])
    same = arm("same", [run(f"s{i}", b=v) for i, v in enumerate((1.0, 1.1, 1.2))])
    alone, (tested, still) = compared([base, moved], ["b"])[0], compared([base, moved, same], ["b"])
    assert alone.p == tested.p and tested.adjusted == pytest.approx(2 * alone.adjusted)
    assert still.p is None and still.verdict == "" and "counted in the family" in still.how


def test_a_figure_that_was_asked_for_and_not_measured_is_told():
    (note,) = [note for note in arms_table([arm("a", [run("a", x=1.0)])], ["x", "y"]).notes if "no arm" in note]
    assert note == "Asked for, and measured by no arm so far: y."


def sized(label, size, *losses):
    runs = [run(f"{label}{size}{i}", parameters_non_embedding=float(size), bits_per_byte=bits(loss))
            for i, loss in enumerate(losses)]  # fmt: skip
    return arm(f"{label} · {size}", runs, backbone=label, size=str(size))


def test_power_laws_are_fitted_for_each_arm_over_all_repetitions():
    arms = [arm("baseline", [run("g", parameters_non_embedding=1.0, bits_per_byte=bits(9.0))], baseline=True)]
    arms += [sized("a", size, 1 + 30 * size**-0.5, 1 + 30 * size**-0.5) for size in (1e3, 1e4, 1e5)]
    arms += [sized("b", size, 2.0) for size in (1e3, 1e4)]
    wanted = Scaling("size")
    one, two = found = laws(arms, wanted)
    assert (one.label, len(one.points)) == ("a", 6)
    assert one.law.exponent.value == pytest.approx(0.5, rel=1e-3) and one.law.floor.value == pytest.approx(1, rel=1e-3)
    assert two.law is None and "takes three sizes" in two.why
    table = scaling_table(found, wanted)
    assert table.rows[0].cells[0].text.startswith("0.5 (") and table.rows[1].cells[0].error
    assert "open" not in table.rows[0].cells[1].text
    assert table.rows[0].cells[-1].text == "6: 1 k, 10 k, 100 k"
    plot = scaling_plot(arms, found, wanted, 0)
    assert plot.svg.startswith("<svg") and plot.legend == ("a", "b")
    assert scaling_plot(arms, [], wanted, 0) is None


@pytest.mark.parametrize(("bound", "said"), [(0.5, "within the 50%"), (0.2, "NOT within the 20%"), (None, "")])
def test_the_page_says_what_training_took_where_arms_are_held_to_it(bound, said):
    planned = SimpleNamespace(grid=SimpleNamespace(fair=SimpleNamespace(seconds=bound)))
    logged = {
        name: replace(run(name), hash=name, log=[{"seconds": s}]) for name, s in (("a", 10), ("b", 14), ("g", 99))
    }
    arms = [arm(name, [one], baseline=name == "g") for name, one in logged.items()]
    sentence = took(planned, arms)
    assert said in sentence and ("10 s (a) to 14 s (b)" in sentence or bound is None)
    assert took(planned, arms[:1]) == ""
