"""From a file to a resolved recipe; random damage always ends in a located error."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.damage import JUNK, damage
from tests.core.toys import Study, valid
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.core.loading import load_as, resolve_as
from workbench.core.plugins import isolated
from workbench.core.tree import dump_yaml

PLUGIN = '''
from tests.core.toys import Filter
@Filter.register("{name}")
class Plugged(Filter):
    """A filter from a file."""
'''


def write(folder, data, name="r.yaml"):
    path = folder / name
    path.write_text(dump_yaml(data), encoding="utf-8")
    return path


def test_load_resolves_and_hashes(tmp_path):
    path = write(tmp_path, valid())
    found = load_as(Study, path)
    assert found.name == "toy"
    assert found.source == path
    assert found.data["fit"]["rate"] == 1e-4
    assert load_as(Study, path).hash == found.hash
    # its own text is the same recipe
    again = tmp_path / "again.yaml"
    again.write_text(found.text())
    assert load_as(Study, again).hash == found.hash


def test_the_hash_covers_all_but_the_name(tmp_path):
    path = write(tmp_path, valid())
    one = load_as(Study, path).hash
    assert load_as(Study, path, ["name=other"]).hash == one
    assert load_as(Study, path, ["law.pace={type: even, steps: 4}"]).hash == one  # said or default: the same recipe
    assert load_as(Study, path, ["fit.steps=10.0"]).hash == one
    for change in ("fit.steps=11", "seed=1", "tests.valid.steps=3", "law.chain=flat", "fit.loud=true"):
        assert load_as(Study, path, [change]).hash != one


def test_what_comes_after_training_moves_figures_only(tmp_path, monkeypatch):
    path = write(tmp_path, valid())
    monkeypatch.setattr(Study, "afterwards", frozenset({"tests"}))
    monkeypatch.setattr(Study, "immaterial", frozenset({"seed"}))
    one = load_as(Study, path)
    later, beside = load_as(Study, path, ["tests.valid.steps=3"]), load_as(Study, path, ["seed=1"])
    assert later.hash == one.hash
    assert later.measured != one.measured
    assert (beside.hash, beside.measured) == (one.hash, one.measured)
    assert beside.data != one.data
    assert load_as(Study, path, ["fit.steps=11"]).hash != one.hash


def test_plugins_count_by_content(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="plugged_a"))
    path = write(tmp_path, valid() | {"plugins": ["mine.py"]})
    use = ["law.filters=[plugged_a]"]
    with isolated():
        first = load_as(Study, path, use)
        assert first.portable()["plugins"] == ["plugins/mine.py"]
        run = tmp_path / "run"
        (run / "plugins").mkdir(parents=True)
        (run / "plugins" / "mine.py").write_bytes((tmp_path / "mine.py").read_bytes())
        (run / "resolved.yaml").write_text(first.text())
        assert load_as(Study, run / "resolved.yaml").hash == first.hash
    with isolated():
        (tmp_path / "mine.py").write_text("# changed\n" + PLUGIN.format(name="plugged_a"))
        assert load_as(Study, path, use).hash != first.hash
    with pytest.raises(RecipeError, match=r"law\.filters\[0\]\.type: no toy_filter 'plugged_a'"):
        load_as(Study, write(tmp_path, valid()), use)


def test_a_plugin_that_trains_nothing_moves_no_weights(tmp_path, monkeypatch):
    """A sampler of one's own finds the trained run; a file that registers nothing acts by being loaded: it counts."""
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="plugged_b"))
    (tmp_path / "silent.py").write_text("LOADED = True\n")
    plain, plugged = write(tmp_path, valid(), "a.yaml"), write(tmp_path, valid() | {"plugins": ["mine.py"]}, "b.yaml")
    use = ["law.filters=[plugged_b]"]
    with isolated():
        one = load_as(Study, plain)
        named = load_as(Study, plugged)  # but nothing of it is used
        assert (named.hash, named.measured) == (one.hash, one.measured)
        trained = load_as(Study, plugged, use)
        assert load_as(Study, plain, use).hash != trained.hash
        monkeypatch.setattr(Study, "afterwards", frozenset({"law"}))
        after = load_as(Study, plugged, use)
        assert after.hash == load_as(Study, plain).hash
        assert after.measured != load_as(Study, plain, use).measured
        silent = write(tmp_path, valid() | {"plugins": ["silent.py"]}, "c.yaml")
        assert load_as(Study, silent).hash != load_as(Study, plain).hash


def test_bad_plugins_are_problems_among_the_others(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "same.py").write_text("x = 1")
    (tmp_path / "sub" / "same.py").write_text("x = 2")
    plugins = ["bad.py", "nope.py", 3, "same.py", "sub/same.py"]
    path = write(tmp_path, valid() | {"plugins": plugins, "seed": -1})
    with isolated(), pytest.raises(RecipeError) as caught:
        load_as(Study, path)
    problems = {problem.path: problem.message for problem in caught.value.problems}
    assert set(problems) == {"plugins[0]", "plugins[1]", "plugins[2]", "plugins[4]", "seed"}
    assert "bad.py:2: ZeroDivisionError" in problems["plugins[0]"]
    assert "same name" in problems["plugins[4]"]
    assert str(caught.value).startswith(f"{path}:\n  plugins[0]: ")


def test_misfits_come_with_the_other_problems(tmp_path):
    data = valid()
    data["law"]["dim"] = 401
    data["seed"] = -1
    with pytest.raises(RecipeError) as caught:
        load_as(Study, write(tmp_path, data))
    assert [problem.path for problem in caught.value.problems] == ["seed", "law.dim"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(JUNK, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_damage_ends_in_a_located_error_or_a_recipe(junks, chance):
    data = valid()
    for junk in junks:
        data = damage(data, junk, chance) if isinstance(data, dict) else junk
    if not isinstance(data, dict):
        data = {"fit": data}
    try:
        found = resolve_as(Study, data)
    except RecipeError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.message
            # only the recipe as a whole has no path: names that are no text, data past all bounds
            assert problem.path or "names of settings" in problem.message or "nested" in problem.message
    else:
        assert resolve_as(Study, found.data).hash == found.hash


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), new=st.text(max_size=6), gone=st.integers(0, 12))
def test_damaged_text_ends_in_an_error_that_names_the_file(tmp_path, cut, new, gone):
    text = dump_yaml(valid())
    path = tmp_path / "r.yaml"
    path.write_text(text[:cut] + new + text[cut + gone :], encoding="utf-8", errors="surrogatepass")
    try:
        load_as(Study, path)
    except WorkbenchError as error:
        assert str(path) in str(error)
