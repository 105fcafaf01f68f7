"""The documentation's site: links lead on, what is made is made of parts and recipes, it builds without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.documents import LINK, ROOT
from workbench.cli import fitting, reference
from workbench.cli.describing import bases, contract, declared, rows
from workbench.core import index
from workbench.core.part import KINDS, Section, settings

spec = importlib.util.spec_from_file_location("pages_of_the_site", ROOT / "docs" / "pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)
index.import_parts()
KNOWN = index.scan()


@pytest.mark.parametrize(
    ("target", "path", "uri", "there"),
    [
        ("docs/grids.md#on-a-cluster", "README.md", "index.md", "grids.md#on-a-cluster"),
        ("../recipes/LOG.md", "docs/training.md", "training.md", "log.md"),
        ("../docs/results/audit.md", "recipes/LOG.md", "log.md", "results/audit.md"),
        ("../graphs/uniform.py", "docs/graphs.md", "graphs.md", "source/graphs/uniform.py.md"),
        ("../../README.md", "docs/plugins/README.md", "plugins/README.md", "../index.md"),
        ("../plugins", "docs/results/x.md", "results/x.md", "../plugins/README.md"),
        ("my_gru.py", "docs/plugins/README.md", "plugins/README.md", "my_gru.py"),
        ("#here", "README.md", "index.md", "#here"),
        ("https://arxiv.org/abs/1", "README.md", "index.md", "https://arxiv.org/abs/1"),
    ],
)
def test_links_lead_to_the_same_file_on_the_site(target, path, uri, there):
    text = f"see [it]({target}), and\n```\n[not]({target})\n```\n"
    assert pages.moved(text, path, uri) == f"see [it]({there}), and\n```\n[not]({target})\n```\n"


def test_a_file_that_holds_fences_is_shown_whole():
    page = pages.source_page("tests/test_site.py")
    assert page.rstrip().endswith("````") and "# tests/test_site.py" in page


def test_the_navigation_names_pages_that_exist_and_leaves_none_out():
    def files(nav):
        for entry in nav:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                yield from files(value) if isinstance(value, list) else [value]

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = set(files(config["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in pages.sources()}
    made = set(pages.OUTSIDE.values())
    assert named - written - made == set()
    assert made - named == set()
    assert {name for name in written - named if not name.startswith("results/")} == set()


@pytest.mark.parametrize("kind", sorted(KNOWN.kinds))
def test_the_reference_has_every_part_and_setting(kind):
    text = reference.kind_page(KNOWN, kind)
    cls = KINDS[kind]
    for member in contract(cls):
        assert f"| `{member.signature.partition('(')[0]}" in text
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    by_name = {section.partition("\n")[0]: section for section in sections[1:]}
    assert list(by_name) == ["Contract", *KNOWN.names()[kind]]
    for name in KNOWN.names()[kind]:
        for setting in settings(cls.lookup(name)):
            assert f"\n| `{setting}` | " in by_name[name]
        for said, value in declared(cls.lookup(name)):
            assert f"`{said}` {reference.inline(value)}" in by_name[name]
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(widths) <= {4, 5}, "a pipe stands in a cell"
    assert not [line for line in text.splitlines() if re.search(r"(?<!`)<(?!`)", re.sub(r"`[^`]*`", "", line))]


def test_sections_have_their_settings():
    text = reference.sections_page()
    for cls in Section.__subclasses__():
        if cls.__module__.split(".")[0] in index.PACKAGES:
            for setting in settings(cls):
                assert f"| `{setting}` | " in text
    assert "| `workers`" not in text  # of a part, not of a section


def test_what_a_kind_asks_is_told_apart_from_what_it_gives():
    asked = {member.signature.partition("(")[0]: member for member in contract(KINDS["mixer"])}
    assert asked["forward"].must and asked["flops_per_token"].must and not asked["no_decay"].must
    assert asked["forward"].signature == "forward(h_BLD: Tensor, cache: Any = None) -> Tensor"
    assert {base.cls.__name__ for base in bases(KNOWN, "mixer")} >= {"CachedMixer", "BlockMixer"}
    assert [row.name for row in rows(KINDS["shaper"].lookup("nucleus"))][:1] == ["p"]
    assert dict(declared(KINDS["predictor"].lookup("first_hitting")))["graphs"] == "mask"


def pair(heading: str, down: str, across: str) -> str:
    return fitting.fits(fitting.PAIRS[heading], down, across)


@pytest.mark.parametrize(
    ("heading", "down", "across", "said"),
    [
        ("Predictors on graphs", "normalised", "uniform", "yes"),
        ("Predictors on graphs", "remdm", "uniform", "–"),
        ("Predictors on graphs", "informed", "absorbing", "with `backbone: hollow`"),
        ("Correctors on graphs", "gibbs", "ring", "yes"),
        ("Correctors on graphs", "euler", "ring", "–"),
        ("Objectives on graphs", "denoising_ce", "absorbing", "with `readout: normalised`"),
        ("Objectives on graphs", "gidd", "absorbing", "–"),
        ("Backbones under processes", "gpt2", "diffusion", "–"),
        ("Backbones under processes", "mamba2", "autoregressive", "with `backbone.causal`"),
        ("Backbones under processes", "transformer", "distilled", "with `start`"),
        ("Samplers of processes", "blockwise", "blocks", "yes"),
        ("Lenses under processes", "self_conditioning", "self_conditioned", "yes"),
        ("Lenses under processes", "self_conditioning", "diffusion", "–"),
    ],
)
def test_what_fits_is_found_by_asking(heading, down, across, said):
    assert pair(heading, down, across) == said


def test_a_part_that_nobody_can_set_is_not_tried(monkeypatch):
    fresh = dict(KINDS["shaper"].registered)
    monkeypatch.setattr(KINDS["shaper"], "registered", fresh)

    @KINDS["shaper"].register("demanding")
    class Demanding(KINDS["shaper"]):
        def __init__(self, strength: float) -> None:
            self.strength = strength

        def __call__(self, log_p_RV, context):
            return log_p_RV

    asked = fitting.Pair("shaper", "sampler.shapers[0]", "graph", "process.graph")
    assert fitting.fits(asked, "demanding", "absorbing") == "not tried"
    assert fitting.fits(asked, "nucleus", "absorbing") == "yes"


def test_markdown_of_docstrings():
    assert reference.inline("``a|b`` < *c* and `D`") == "`a|b` &lt; \\*c\\* and `D`"
    assert reference.code("x: Tensor | None") == "`x: Tensor or None`"
    assert reference.markdown("A line::\n\n    code *here*\n\nOn.") == [
        "A line:", "", "        code *here*", "", "On.", "",
    ]  # fmt: skip


def test_recipes_say_what_they_are():
    table = pages.recipe_table()
    assert len(table) == 3 + len(list((ROOT / "recipes").rglob("*.yaml")))
    quick = next(line for line in table if "`recipes/quickstart/sedd.yaml`" in line)
    assert "≤ 1.643" in quick and "run:" not in quick
    assert pages.header("# A thing.\n# run: x      expected: <fast>\nname: y\n") == ("A thing.", "<fast>")


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason='needs pip install -e ".[docs]"')
    site = Path(os.environ.get("BUILT_SITE", tmp_path / "site"))  # who has just built it need not wait a minute for it
    if not site.is_dir():
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
            capture_output=True, text=True, cwd=ROOT, timeout=280,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    built = list(site.rglob("*.html"))
    assert len(built) > len(pages.sources()) and (site / "reference" / "predictor.html").is_file()
    for file in built:
        asked = re.findall(r'(?:src|href)="(https?://[^"]*)"[^>]*(?:rel="stylesheet"|></script>)', file.read_text())
        assert not asked, f"{file.name} asks another server: {asked}"


def test_links_are_read_as_the_tests_of_documents_read_them():
    line = '[a](b.md) ![c](d.svg "e")'
    assert LINK.findall(line) == pages.LINK.findall(line) == ["b.md", "d.svg"]
