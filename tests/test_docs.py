"""What README and docs tell people to type works: examples run, commands parse, files and targets exist."""

from __future__ import annotations

import functools
import glob
import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import slips
from tests.documents import (
    CODE,
    LINK,
    ROOT,
    anchor,
    commands,
    documents,
    headings,
    split,
    workbench_words,
    write_files,
)
from workbench.check import contract_checks
from workbench.cli import main as entry
from workbench.cli.describing import contract
from workbench.cli.grid import launcher
from workbench.cli.main import COMMANDS, main
from workbench.core.index import import_parts, scan
from workbench.core.part import KINDS, Section, settings
from workbench.core.plugins import isolated
from workbench.core.reading import read_yaml
from workbench.core.spec import resolve
from workbench.core.tree import load_tree, merge
from workbench.grid.cells import plan
from workbench.metrics.value import INDEPENDENT, SHUFFLED, Value
from workbench.recipe import Recipe, load
from workbench.report.tables import further_column, reference_rows

README = ROOT / "README.md"
NAMES = [path.relative_to(ROOT).as_posix() for path in documents()]
WITH_EXAMPLES = [name for name in NAMES if any(block.language == "python" for block in split(ROOT / name)[0])]
COMMAND_LINES = [
    pytest.param(name, line, rest, id=f"{name}:{line}")
    for name in NAMES
    for line, words in commands(ROOT / name)
    if (rest := workbench_words(words)) is not None
]
RUN = re.compile(r"(?:.*/)?runs/(?P<name>[\w.-]+?)-(?P<hash>\*|[0-9a-f]{8}|<\w+>|HASH)/?")
QUICK = ("list", "show", "check")
"""Commands that only look: they are run as they stand."""
SHORTENED = {"process", "layout", "target"}
"""Kinds with so many methods that the table of kinds names the first ones."""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a fresh clone and may be written into."""
    for name in ("recipes", "docs", "workbench", "backbones", "graphs", "samplers", "README.md"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    with isolated():
        yield tmp_path


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(checkout, name):
    """All of a document's examples one after another, as a reader would; later ones may use what earlier ones made."""
    code = ["import sys", "names = {'__name__': '__main__'}"]
    for block in split(ROOT / name)[0]:
        if block.title:
            code.append(f"open({block.title!r}, 'w').write({block.text!r})")
        elif block.language == "python":
            text = "\n" * (block.line - 1) + block.text  # a traceback then names the document's line
            code.append(f"exec(compile({text!r}, {name!r}, 'exec'), names)")
    (checkout / "examples.py").write_text("\n".join(code))
    done = subprocess.run(
        [sys.executable, "examples.py"], capture_output=True, text=True, cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("name", "line", "words"), COMMAND_LINES)
def test_commands_are_sound(checkout, capsys, name, line, words):
    """They parse; recipes named exist and take the settings given; what only looks is run."""
    write_files(ROOT / name, checkout)
    words = [file for word in words for file in (sorted(glob.glob(word)) if "*" in word else []) or [word]]  # the shell
    try:
        args, unknown = entry._parser(words).parse_known_args(words)
    except SystemExit as exit:
        assert exit.code == 0, f"{name}:{line}: {capsys.readouterr().err}"  # --help and --version end so
        return
    assert "override" in args or not unknown, f"{name}:{line}: {unknown}"
    assert not [word for word in unknown if word.startswith("-")], f"{name}:{line}: {unknown}"
    overrides = [*getattr(args, "override", []), *unknown]
    for word in words:
        if word.endswith((".yaml", ".py")) and "=" not in word:
            assert Path(word).is_file(), f"{name}:{line}: there is no {word}"
    if args.command in QUICK:
        assert main(words) == 0, f"{name}:{line}: {capsys.readouterr()}"
    elif args.command == "grid":
        launcher(args.launcher, args.workers)
    elif args.command == "train" and args.recipe is not None:
        load(args.recipe, overrides)
    known = runs(ROOT / name)
    for word in words:
        if (run := RUN.fullmatch(word)) and not any(key.startswith(run["name"] + "-") for key in known):
            assert run["name"] in known, f"{name}:{line}: no recipe has the name {run['name']}"
            path, own = known[run["name"]]
            load(path, [*own, *overrides] if args.command == "sample" else own)
            if re.fullmatch("[0-9a-f]{8}", run["hash"]):
                now = load(path, own).hash[:8]
                assert now == run["hash"], f"{name}:{line}: now its hash is {now}"


def runs(document: Path) -> dict[str, tuple[Path, list[str]]]:
    """Recipe and overrides by the names of runs: shipped recipes, those of the docs, and what a document trains."""
    found: dict[str, tuple[Path, list[str]]] = dict(shipped())
    for block in split(document)[0]:
        tree = read_yaml(Path(block.title)) if block.title.endswith(".yaml") else {}
        if "name" in tree and not tree.keys() & {"axes", "questions"}:
            found.setdefault(load(block.title).name, (Path(block.title), []))
    for _, words in commands(document):
        names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
        trained = [ROOT / word for word in words if word.endswith(".yaml") and "=" not in word]
        if names and trained:
            found[names[0]] = trained[0], [word for word in words if re.match(r"[\w.\[\]]+=", word)]
    return found


def sections() -> list[type[Section]]:
    """All sections of recipes and grids."""
    found, todo = [], [Section]
    while todo:
        todo += (below := todo.pop().__subclasses__())
        found += [one for one in below if one.__module__.partition(".")[0] == "workbench"]
    return found


@functools.cache
def shipped() -> dict[str, tuple[Path, list[str]]]:
    """Recipes of the checkout and of its docs by the names of their runs."""
    files = [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "docs").rglob("*.yaml")]
    return {
        load(path).name: (path, [])
        for path in files
        if path.name != "base.yaml"
        and path.parent.name not in ("base", "audits", "tasks")
        and not read_yaml(path).keys() & {"axes", "questions"}
    }


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_files_and_names_exist(name):
    prose = split(ROOT / name)[1]
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spoken = CODE.findall(prose)
    lines = [words for _, words in commands(ROOT / name)] + [code.split() for code in spoken]
    for words in lines:
        if words[:1] == ["make"]:
            asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(asked) <= targets, f"{name}: make {asked}"
        elif words[:1] == ["workbench"] and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            assert words[1] in COMMANDS, f"{name}: {words}"
    for code in spoken:
        if re.fullmatch(r"(recipes|docs|tests|workbench|backbones|graphs|samplers)/[\w./-]*\.\w+", code):
            assert (ROOT / code).exists(), f"{name}: `{code}`"
    for target in LINK.findall(prose):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            file = (ROOT / name).parent / target.partition("#")[0]
            assert file.exists(), f"{name}: link to {target}"


@pytest.mark.parametrize("name", NAMES)
def test_headings_are_in_order_and_anchors_exist(name):
    found = headings(ROOT / name)
    if found or "/results/" not in name:  # a benchmark's bare table needs no title
        assert [level for level, _ in found].count(1) == 1 and found[0][0] == 1, f"{name}: one title, at the top"
    for (above, _), (level, text) in itertools.pairwise(found):
        assert level <= above + 1, f"{name}: {text!r} skips a level"
    for target in LINK.findall(split(ROOT / name)[1]):
        path, _, asked = target.partition("#")
        if asked and "://" not in target:
            file = (ROOT / name).parent / path if path else ROOT / name
            known = {anchor(text) for _, text in headings(file)}
            assert asked in known, f"{name}: link to {target}; known: {sorted(known)}"


def test_readme_commands():
    """The first things a reader types."""
    if not README.is_file():
        pytest.skip("README.md is not written yet")
    typed = [" ".join(words) for _, words in commands(README)]
    for target in ("make quickstart", "make test"):
        assert any(line.startswith(target) for line in typed), f"README shows `{target}`"
    text = README.read_text()
    assert "TO BE MEASURED" not in text and "TODO" not in text


def test_yaml_in_the_docs_is_read_and_names_parts_that_exist():
    known = scan().names()
    every = {name for names in known.values() for name in names}
    for name in NAMES:
        for block in split(ROOT / name)[0]:
            if block.language not in ("yaml", "yml"):
                continue
            for tree in yaml.safe_load_all(block.text):
                types = set(re.findall(r"\btype: *([\w-]+)", str(yaml.safe_dump(tree))))
                own = re.search(r"plugins:", block.text) or block.title
                assert own or types <= every, f"{name}:{block.line}: no part is called {types - every}"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("docs/coming-from/")])
def test_settings_that_others_are_sent_to_exist(name):
    """In tables that map settings, the second column is ours: dotted settings and parts by their names."""
    import_parts()
    every = {part for kind in KINDS.values() for part in kind.registered}
    parts = [part for kind in KINDS.values() for part in kind.registered.values()]
    known = {setting for part in (*parts, *sections()) for setting in settings(part)} | {"final", "valid"}
    rows = re.findall(r"^\| .*? \| (.*?) \|", split(ROOT / name)[1], re.MULTILINE)
    seen = 0
    for code in (code for row in rows for code in CODE.findall(row)):
        dotted = re.match(r"(backbone|process|sampler|train|data|evaluations|start)((?:\.\w+)+)", code)
        wrong = [word for word in (dotted[2].split(".")[1:] if dotted else ()) if word not in known]
        wrong += [word for word in re.findall(r"type: (\w+)", code) if word not in every]
        assert not wrong, f"{name}: `{code}`: there is no {wrong}"
        seen += bool(dotted)
    assert seen > 8


def test_the_rows_that_no_model_wrote_are_told_as_they_stand():
    """Held-out text below the runs, calibration texts last: README and tutorial say which rows a report ends with."""
    value = Value("x", 1.0, real=2.0, calibration={SHUFFLED: 3.0, INDEPENDENT: 4.0})
    rows = [row.label for row in reference_rows([("run", [value])], [further_column("x", "")])]
    for name in ("README.md", "docs/tutorial.md"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        places = [text.find(f"*{label}*") for label in rows]
        assert -1 not in places and places == sorted(places), f"{name}: {rows}"
        assert "last row is real text" not in text and "ends with the real text" not in text


def test_the_gallery_of_errors_is_what_the_tool_says(tmp_path):
    """`python -m tests.slips` writes it anew."""
    written = slips.GALLERY.read_text(encoding="utf-8")
    assert len(re.findall(r"^\$ workbench ", written, re.MULTILINE)) > 15
    assert slips.gallery(tmp_path / "clone") == written


def test_the_table_of_kinds_is_whole_and_true():
    """docs/plugins/README.md: a row a kind, its base class, methods that exist, among them all that must be written."""
    import_parts()
    document = (ROOT / "docs" / "plugins" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", document, re.MULTILINE)
    assert sorted(kind for kind, _, _ in rows) == sorted(scan().kinds), "a row a kind"
    for kind, base, methods in rows:
        module, _, name = CODE.findall(base)[0].rpartition(".")
        assert getattr(importlib.import_module(module), name) is KINDS[kind], kind
        named = {found for code in CODE.findall(methods) if (found := re.match(r"\w+", code)[0])}
        known = {member.signature.partition("(")[0]: member.must for member in contract(KINDS[kind])}
        assert named - {"RateMatrix"} <= set(known), f"{kind}: it has {sorted(known)}"
        missing = {name for name, must in known.items() if must} - named
        assert not missing or kind in SHORTENED, f"{kind}: the row leaves out {missing}"
    said = re.search(r"Every kind has such checks but (.*?), whose", document, re.DOTALL)[1]
    assert set(CODE.findall(said)) == set(scan().kinds) - set(contract_checks())  # tests register kinds of their own


FRAGMENTS = [
    pytest.param(tree, id=f"{name}:{block.line}-{number}")
    for name in NAMES
    for block in split(ROOT / name)[0]
    if block.language in ("yaml", "yml") and not block.title
    for number, tree in enumerate(yaml.safe_load_all(block.text))
    if isinstance(tree, dict) and set(tree) <= {"data", "backbone", "process", "sampler", "train", "evaluations"}
]


@pytest.mark.parametrize("tree", FRAGMENTS)
def test_pieces_of_recipes_resolve(tree):
    """A piece shown alone, put into the smoke recipe, has no setting that is not there (fit is another matter)."""
    import_parts()
    base = load_tree(ROOT / "recipes" / "smoke" / "sedd.yaml")
    _, problems = resolve(Recipe, merge(base, tree))
    assert problems == []


def test_grids_that_are_shown_can_be_planned(tmp_path):
    """As files in a folder beside the recipes' own."""
    (tmp_path / "quickstart").symlink_to(ROOT / "recipes" / "quickstart")
    shown = [
        block.text
        for name in NAMES
        for block in split(ROOT / name)[0]
        if block.language == "yaml" and not block.title and re.search(r"^axes:", block.text, re.MULTILINE)
    ]
    assert shown
    for number, text in enumerate(shown):
        file = tmp_path / "grids" / f"shown-{number}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        assert len(plan(file).cells) > 2


# --- the reader of documents itself -----------------------------------------------------------------------------


def test_blocks_and_commands_are_found(tmp_path):
    path = tmp_path / "x.md"
    path.write_text(
        "a `b`\n```bash\n$ OMP_NUM_THREADS=1 workbench train r.yaml \\\n  a.b=c  # why\nmake test && ls | wc\n"
        "torchrun --nproc-per-node=2 -m workbench train r.yaml\n```\n```python\nx = 1\n```\n"
    )
    blocks, prose = split(path)
    assert [(block.language, block.line) for block in blocks] == [("bash", 3), ("python", 9)]
    assert prose == "a `b`"
    found = [words for _, words in commands(path)]
    assert found[0] == ["workbench", "train", "r.yaml", "a.b=c"]
    assert found[1:4] == [["make", "test"], ["ls"], ["wc"]]
    assert workbench_words(found[4]) == ["train", "r.yaml"] and workbench_words(found[1]) is None
    path.write_text("```bash\nworkbench")
    with pytest.raises(ValueError, match="never closed"):
        split(path)
