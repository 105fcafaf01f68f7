"""The index by `ast`, and plug-ins by file and by entry point."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from workbench.core import index
from workbench.core.errors import WorkbenchError
from workbench.core.part import KINDS
from workbench.core.plugins import PluginError, isolated, load_plugin

GOOD = '''
"""A plug-in."""
from abc import ABC
import graphs.base as base
from graphs.base import Noise as N
from workbench.core.part import Part

class Judge(Part, ABC, kind="plugged_kind"):
    """Judges."""

@N.register("plugged_noise")
class PluggedNoise(N):
    """Rises.

    More of it.
    """
    total = rate = time_at = None

if True:
    @Judge.register("strict")
    class Strict(Judge):
        """Says no."""
'''


def test_the_index_equals_what_importing_registers():
    found = index.scan()
    index.import_parts(found)
    own = {kind: cls for kind, cls in KINDS.items() if cls.__module__.partition(".")[0] in index.PACKAGES}
    assert set(found.kinds) == set(own)
    for kind, cls in own.items():
        registered = {
            name: part for name, part in cls.registered.items() if part.__module__.partition(".")[0] in index.PACKAGES
        }
        assert {entry.name: entry.cls for entry in found.of(kind)} == {n: p.__name__ for n, p in registered.items()}
        assert all(entry.module == registered[entry.name].__module__ for entry in found.of(kind))


def test_every_entry_says_where_and_what():
    found = index.scan()
    for entry in (*found.kinds.values(), *found.parts):
        line = entry.file.read_text(encoding="utf-8").splitlines()[entry.line - 1]
        assert line.lstrip().startswith(f"class {entry.cls}")
        assert entry.summary, f"{entry.cls} has no docstring"


def test_scanning_imports_nothing_heavy():
    code = """
        import sys, json
        from workbench.core.index import scan
        scan()
        heavy = ("torch", "numpy", "pydantic", "rich", "yaml")
        print(json.dumps([name for name in heavy if name in sys.modules]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_a_plugin_file_is_listed_and_loaded(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(GOOD)
    found = index.scan([file])
    assert [entry.name for entry in found.of("plugged_kind")] == ["strict"]
    noise = next(entry for entry in found.of("noise") if entry.name == "plugged_noise")
    assert (noise.cls, noise.summary, noise.file, noise.module) == ("PluggedNoise", "Rises.", file, "")
    with isolated():
        plugin = load_plugin(file)
        assert [part.type_name for part in plugin.parts()] == ["plugged_noise", "strict"]
        assert load_plugin(file) == plugin  # once per content
        copy = tmp_path / "copy" / "mine.py"
        copy.parent.mkdir()
        copy.write_text(GOOD)
        assert load_plugin(copy).module == plugin.module  # a run's copy of a plug-in is that plug-in
        assert "plugged_noise" in KINDS["noise"].registered
    assert "plugged_noise" not in KINDS["noise"].registered
    assert "plugged_kind" not in KINDS
    with isolated():
        assert [part.type_name for part in load_plugin(file).parts()] == ["plugged_noise", "strict"]
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = (\n", "p.py:2: SyntaxError"),
        ("x = 1\n\ndef f():\n    raise ValueError('why')\nf()\n", "p.py:4: ValueError: why"),
        ("import nowhere_at_all", "p.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)", "p.py:1: SystemExit"),
        (GOOD + "\nN.register('loglinear')(PluggedNoise)", "PartDefinitionError: noise 'loglinear' is taken by"),
        (GOOD.replace("total =", "def __init__(self, **k): pass\n    total ="), "hides settings"),
    ],
)
def test_a_plugin_that_raises_says_where_and_leaves_nothing(tmp_path, text, words):
    index.import_parts()
    file = tmp_path / "p.py"
    file.write_text(text)
    before = {kind: dict(cls.registered) for kind, cls in KINDS.items()}
    with pytest.raises(PluginError) as caught:
        load_plugin(file)
    assert words in str(caught.value)
    assert {kind: dict(cls.registered) for kind, cls in KINDS.items()} == before


def test_what_is_no_plugin(tmp_path):
    with pytest.raises(PluginError, match="there is no such file"):
        load_plugin(tmp_path / "nope.py")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(PluginError, match=r"a plug-in is a \.py file"):
        load_plugin(tmp_path / "a.txt")
    (tmp_path / "bad.py").write_text("class :")
    with pytest.raises(WorkbenchError, match=r"bad\.py:1: "):
        index.scan([tmp_path / "bad.py"])
    with pytest.raises(WorkbenchError, match="cannot be read"):
        index.scan([tmp_path / "nope.py"])


def test_an_installed_package_plugs_in(tmp_path):
    """As pip would leave it: a package beside its entry points."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").write_text("raise RuntimeError('listing must not import me')")
    (tmp_path / "my_pkg" / "parts.py").write_text(GOOD)
    (tmp_path / "flat_mod.py").write_text(GOOD.replace("plugged_", "flat_").replace("strict", "mild"))
    info = tmp_path / "my_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pkg\nVersion: 1.0\n")
    points = "[workbench.parts]\na = my_pkg.parts\nb = flat_mod\nc = not_there.at_all\n"
    (info / "entry_points.txt").write_text(points)
    code = f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        from workbench.core import index
        found = index.scan()
        assert [e.name for e in found.of("plugged_kind")] == ["strict"], found.names()
        assert [e.module for e in found.of("flat_kind")] == ["flat_mod"]
        try:
            index.import_parts(found)
        except Exception as error:
            print(type(error).__name__, error)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("WorkbenchError my_pkg.parts cannot be imported: RuntimeError: listing must")


def test_contracts_are_found_beside_kinds():
    modules = index.contract_modules(index.scan())
    assert "graphs.contract" in modules
