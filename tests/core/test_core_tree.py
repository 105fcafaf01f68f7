"""Recipes as trees: what YAML is read, `extends`, overrides, hashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.reading import is_yaml
from workbench.core.tree import TreeError, dump_yaml, load_tree, merge, override, read_yaml, stable_hash


def test_yaml_is_read_without_surprises():
    text = "a: 1e-4\nb: on\nc: 010\nd: 1:30\ne: 2024-01-01\nf: 50_257\ng: [1.0e-3, 0x1f, -3, .5, ~, true]\nno:\n"
    data = read_yaml(text)
    assert data == {
        "a": "1e-4", "b": "on", "c": "010", "d": "1:30", "e": "2024-01-01", "f": 50257,
        "g": [1e-3, 31, -3, 0.5, None, True], "no": None,
    }  # fmt: skip
    assert read_yaml("") is None


def test_what_a_yaml_file_is_called_is_asked_in_one_place():
    assert is_yaml("a.yaml") and is_yaml(Path("grids/b.yml")) and not is_yaml("yaml") and not is_yaml(Path("a.yaml.gz"))
    package = Path(__file__).parents[2] / "workbench"
    asking = [file.relative_to(package).as_posix() for file in package.rglob("*.py") if '".yml"' in file.read_text()]
    assert asking == ["core/reading.py"]


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcd", "bcde", strict=True)
)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: !!python/object/apply:os.system [x]", "1:4", "tags are not read"),
        ("a: !!str 3", "1:4", "tags are not read"),
        ("b: 1\na: {c: 1, c: 2}", "2:11", "'c' is given twice"),
        ("a: &x\n  b: *x", "2:6", "an alias of what it stands in"),
        ("<<: {a: 1}", "1:1", "merge keys are not read"),
        ("? [1]\n: 2", "1:3", "a name must be plain text"),
        ("a: [1", "1:6", "expected"),
        ("a: 'x\nb: 2", "2:5", "end of stream"),
        ("[" * 60, "1:51", "nesting deeper than 50"),
        ("a: " + "{a: " * 60, "1:", "nesting deeper than 50"),
        ("a: \x01", "1:4", "a character that YAML does not allow"),
        ("a: 9" + "9" * 5000, "1:4", "an integer beyond all use"),
        ("a: 1\n---\nb: 2", "2:1", "another document"),
        ("a: *x", "1:4", "undefined alias"),
        ("\ta: 1", "1:1", "cannot start any token"),
        (LAUGHS, "5:4", "aliases expand to more than"),
    ],
)
def test_bad_yaml_has_a_place(text, place, words):
    with pytest.raises(TreeError) as caught:
        read_yaml(text, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml:{place}")
    assert words in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{},&*!'\"|>%#?<~ \n\t0159.\\x\ud83d", max_size=60))
def test_any_text_is_data_or_a_located_error(text):
    try:
        read_yaml(text)
    except TreeError as error:
        assert str(error).startswith("text:")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "no", "1", "x y"]), PLAIN))
def test_what_is_written_is_read_back(data):
    assert read_yaml(dump_yaml(data)) == data


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_extends_follows_a_chain_of_files(tmp_path):
    write(
        tmp_path,
        base__root="a: {type: x, p: 1, q: 2}\nb: [1, 2]\nkeep: {u: 1, v: 2}\nplugins: [./p.py]",
        base__mid="extends: root.yaml\na: {p: 5}\nkeep: {v: 3}",
        top="extends: base/mid.yaml\nb: [9]\nname: top",
    )
    assert load_tree(tmp_path / "top.yaml") == {
        "a": {"type": "x", "p": 5, "q": 2},
        "b": [9],
        "keep": {"u": 1, "v": 3},
        "plugins": [str((tmp_path / "base/p.py").resolve())],  # relative to the file that names it
        "name": "top",
    }


@pytest.mark.parametrize(
    ("parent", "child", "merged"),
    [
        ({"type": "x", "p": 1}, {"type": "y"}, {"type": "y"}),
        ({"type": "x", "p": 1}, {"type": "x", "q": 2}, {"type": "x", "p": 1, "q": 2}),
        ({"type": "x", "p": 1}, {"q": 2}, {"type": "x", "p": 1, "q": 2}),
        ({"type": "x", "p": 1}, "x", {"type": "x", "p": 1}),
        ({"type": "x", "p": 1}, "y", {"type": "y"}),
        ("x", {"p": 1}, {"type": "x", "p": 1}),
        ("x", {"type": "y", "p": 1}, {"type": "y", "p": 1}),
        ({"p": 1}, {"type": "x"}, {"type": "x"}),
        ({"p": 1}, "x", "x"),
        ([1, 2], [3], [3]),
        ({"a": 1}, None, None),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
    ],
)
def test_merge(parent, child, merged):
    assert merge({"k": parent}, {"k": child}) == {"k": merged}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"top": "extends: top.yaml"}, "extends goes round"),
        ({"top": "extends: a.yaml", "a": "extends: b.yaml", "b": "extends: a.yaml"}, "extends goes round: top.yaml → "),
        ({"top": "extends: /etc/passwd"}, "extends names one .yaml file"),
        ({"top": "extends: /etc/a.yaml"}, "relative to this one"),
        ({"top": "extends: [a.yaml]"}, "extends names one .yaml file"),
        ({"top": "extends: nope.yaml"}, "there is no such file"),
        ({"top": "- 1"}, "a recipe is a map of settings"),
        ({"top": ""}, "this file is empty"),
        ({"top": "extends: a.yaml", "a": "x: ["}, "a.yaml:1:5"),
    ],
)  # fmt: skip
def test_files_that_are_no_recipes(tmp_path, files, words):
    write(tmp_path, **files)
    with pytest.raises(TreeError) as caught:
        load_tree(tmp_path / "top.yaml")
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "big.yaml").write_text("a: 1\n" * 300_000)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9")
    for name, words in {
        "nope.yaml": "there is no such file",
        "": "is a folder",
        "big.yaml": "larger than",
        "latin.yaml": "latin.yaml:2:4: is not UTF-8",
    }.items():
        with pytest.raises(TreeError) as caught:
            load_tree(tmp_path / name)
        assert words in str(caught.value)


def test_overrides():
    tree = {"g": "sink", "b": {"type": "t", "d": 3, "e": 1}, "s": [{"type": "n", "p": 1}, "m"], "n": 1}
    made = override(tree, ["g.floor=1e-3", "b.type=u", "b.d=2", "s[0].p=0.9", "s[1].q=x", "new.deep=[1, 2]", "n=7"])
    assert made == {
        "g": {"type": "sink", "floor": "1e-3"},
        "b": {"type": "u", "d": 2},  # another type: what belonged to the old one is gone
        "s": [{"type": "n", "p": 0.9}, {"type": "m", "q": "x"}],
        "new": {"deep": [1, 2]},
        "n": 7,
    }
    assert override(tree, ["b.type=t", "b.d=4"])["b"] == {"type": "t", "d": 4, "e": 1}
    assert tree["b"]["d"] == 3  # the tree given is left alone


@pytest.mark.parametrize("text", ["a", "=3", "a..b=1", "s[5]=1", "a[0]=1", "a.b=[", "a b=1", "a=!x 1", "[0]=1"])
def test_bad_overrides_say_which(text):
    with pytest.raises(TreeError, match="override"):
        override({"s": [1], "a": 3}, [text])


def test_the_hash_is_of_the_content():
    assert stable_hash({"a": 1, "b": [1.0, 2.5]}) == stable_hash({"b": (1, 2.5), "a": 1.0})
    assert stable_hash({"a": 1}) != stable_hash({"a": True})
    assert stable_hash({"a": 1}) != stable_hash({"a": "1"})
    assert stable_hash({"a": -0.0}) == stable_hash({"a": 0})
    # fixed for ever: run folders are found by it
    assert stable_hash({"a": [1, "σ", None, 1e-4]}) == "2a70459436800e52"
