"""The command line as a user meets it: output, exit status, no tracebacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from workbench.cli import main as entry
from workbench.cli import tables
from workbench.cli.main import main
from workbench.core import index
from workbench.core.errors import WorkbenchError
from workbench.core.reading import read_yaml
from workbench.core.schema import DIALECT

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke"

PLUGIN = '''
import torch
from torch import nn

from backbones.base import Backbone
from workbench.core.bounds import Count


@Backbone.register("toy_bag")
class Bag(Backbone):
    """Sees each position by itself.

    Settings:
        width: of the features.
    """

    def __init__(self, states: int, outputs: int, width: Count = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(states, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x_BL, sigma=None, cache=None):
        return self.embed(x_BL)
'''


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in a folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit:
            status = exit.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def recipe(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


# --- the entry point --------------------------------------------------------------------------------------------


def test_help_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in entry.COMMANDS)


@pytest.mark.parametrize("command", sorted(entry.COMMANDS))
def test_every_command_has_help(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: workbench {command}")


def test_wrong_usage_is_status_2(run):
    assert run()[0] == 2
    status, _, err = run("lst")
    assert status == 2
    assert "there is no command 'lst'. Did you mean 'list'?" in err
    status, _, err = run("list", "--nonsense")
    assert status == 2
    assert "workbench list --help" in err
    assert run("check")[0] == 2


def test_errors_are_one_message_unless_debugging(run):
    status, out, err = run("list", "bakbone")
    assert (status, out) == (1, "")
    assert err.startswith("workbench list: there is no kind 'bakbone'. Did you mean 'backbone'?")
    for words in (["--debug", "list", "x"], ["list", "x", "--debug"]):
        with pytest.raises(WorkbenchError):
            main(words)


def test_version(run):
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith("workbench ")


def test_listing_and_help_are_quick_and_import_no_torch():
    """Under half a second is asked for; the imports are the fact behind it, the clock has room for a busy machine."""
    code = "import sys; from workbench.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for words in (["list"], ["list", "backbones", "--json"]):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, cwd=ROOT)
        assert time.perf_counter() - begin < 3
    done = subprocess.run([sys.executable, "-m", "workbench", "--help"], check=True, capture_output=True, cwd=ROOT)
    assert b"quickstart" in done.stdout


def test_resolving_imports_torch_and_little_besides():
    """Parts are classes of torch; its compiler and Triton are for those who count FLOPs or compile."""
    code = "import sys; from workbench.cli.main import main; main(sys.argv[1:]); import workbench.evaluate"
    words = [f"{code}; print(*sys.modules, sep='\\n')", "show", str(SMOKE / "sedd.yaml"), "--json"]
    done = subprocess.run([sys.executable, "-c", *words], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.splitlines())
    assert "torch" in loaded
    heavy = {"triton", "torch.utils.flop_counter", "torch._inductor", "torch._dynamo", "matplotlib", "transformers"}
    assert not loaded & heavy


def test_a_reader_that_leaves_is_no_error():
    line = f"{sys.executable} -m workbench list | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


# --- list and show ----------------------------------------------------------------------------------------------


def test_list(run, tmp_path):
    known = index.scan().names()
    status, out, _ = run("list", "--json")
    assert status == 0
    assert json.loads(out) == known
    for word in ("backbone", "backbones"):
        assert json.loads(run("list", word, "--json")[1]) == {"backbone": known["backbone"]}
    assert json.loads(run("list", "processes", "--json")[1]) == {"process": known["process"]}
    out = run("list")[1]
    assert all(kind in out for kind in known)
    assert "backbones/transformer.py:" in run("list", "backbones")[1]
    (tmp_path / "bag.py").write_text(PLUGIN)
    assert "toy_bag" in run("list", "backbones", "--plugin", "bag.py")[1]
    assert "toy_bag" not in run("list", "backbones")[1]


def test_show_a_part(run):
    status, out, _ = run("show", "backbone", "transformer")
    assert status == 0
    for words in ("backbones/transformer.py:", "depth", "an integer ≥ 1", "adaln", "number of blocks"):
        assert words in out
    assert "Settings:" not in out  # the table shows them
    shown = json.loads(run("show", "backbones", "transformer", "--json")[1])
    assert shown["file"].endswith("backbones/transformer.py")
    assert {"name", "type", "default", "doc"} == set(shown["settings"][0])
    out = run("show", "process", "diffusion")[1]
    assert "what suits its siblings" in out
    assert "absorbing" in out
    status, _, err = run("show", "graph", "absorbng")
    assert status == 1
    assert "Did you mean 'absorbing'?" in err


def test_show_a_part_of_every_kind(run):
    for found in {part.kind: part for part in index.scan().parts}.values():
        status, out, err = run("show", found.kind, found.name)
        assert status == 0, err
        assert out.startswith(f"{found.kind} {found.name}: {found.cls}")


def test_show_a_kind(run):
    status, out, _ = run("show", "samplers")
    assert status == 0
    assert "left_to_right" in out
    assert "Supplied by the workbench" in run("show", "graph")[1]
    assert json.loads(run("show", "noise", "--json")[1])["class"] == "Noise"


def test_show_a_kind_prints_its_contract(run):
    out = run("show", "shaper")[1]
    assert "__call__(log_p_RV: Tensor, context: ShapeContext) -> Tensor" in out and "pure, each row by itself" in out
    shown = json.loads(run("show", "backbone", "--json")[1])
    asked = {member["signature"].partition("(")[0]: member["must"] for member in shown["contract"]}
    assert asked["forward"] and not asked["sight"]
    assert [member["signature"] for member in shown["bases"]["CachedBackbone"]][1] == "new_cache(batch: int) -> Any"
    assert "It declares: stages 1; blind yes" in run("show", "predictor", "normalised")[1]


def test_show_the_reference(run):
    status, out, _ = run("show", "reference", "lens", "times")
    assert status == 0 and out.startswith("# Lens") and "\n# Times" in out and "\n## sigma_hat" in out
    assert list(json.loads(run("show", "reference", "shapers", "--json")[1])) == ["shaper"]
    status, _, err = run("show", "reference", "lense")
    assert status == 1 and "Did you mean 'lens'?" in err


def test_show_the_schema(run):
    status, out, _ = run("show", "schema")
    assert status == 0
    assert json.loads(out)["$schema"] == DIALECT


def test_show_a_recipe(run, tmp_path):
    status, out, _ = run("show", SMOKE / "sedd.yaml", "train.steps=7", "process.noise=cosine")
    assert status == 0
    data = read_yaml(out)
    assert data["train"]["steps"] == 7
    assert data["process"]["noise"]["type"] == "cosine"
    (tmp_path / "again.yaml").write_text(out)
    again = run("show", "again.yaml")[1]
    assert read_yaml(again) == data
    assert again.splitlines()[0].split()[-1] == out.splitlines()[0].split()[-1]  # the hash
    shown = json.loads(run("show", "again.yaml", "--json")[1])
    assert shown["recipe"] == data
    status, _, err = run("show", "again.yaml", "train.stps=7")
    assert status == 1
    assert "train.stps: train has no such setting. Did you mean 'steps'?" in err


# --- check ------------------------------------------------------------------------------------------------------


def test_check_good_recipes(run):
    files = [SMOKE / "sedd.yaml", SMOKE / "gpt2.yaml"]
    status, out, _ = run("check", *files, "--json")
    assert status == 0
    found = json.loads(out)["recipes"]
    assert [one["file"] for one in found] == [str(file) for file in files]
    for one in found:
        assert one["problems"] == []
        assert 10_000 < one["non_embedding"] < one["parameters"] < 100_000
        # a product of matrices takes two FLOPs a weight and token: the embedding tables take none
        assert one["flops_per_token"] > 1.5 * one["non_embedding"]
        assert one["training_bytes"] > 16 * one["parameters"]
        assert one["vocab"] == 257
    status, out, _ = run("check", *files)
    assert status == 0
    assert "FLOPs/token" in out


def test_figures_are_never_broken_however_narrow_the_terminal(run, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(tables.console, "__defaults__", (50,))
    status, out, _ = run("check", SMOKE / "sedd.yaml", SMOKE / "gpt2.yaml", "--lengths", "32")
    found = json.loads(run("check", SMOKE / "sedd.yaml", SMOKE / "gpt2.yaml", "--json")[1])["recipes"]
    assert status == 0
    words = out.split()
    assert all(one["hash"] in words for one in found) and {"non-embedding", "FLOPs/token", "memory"} <= set(words)
    assert max(map(len, out.splitlines())) <= 50


@pytest.mark.parametrize(("columns", "width"), [("80", tables.WIDE), ("300", 300), ("wide", tables.WIDE)])
def test_the_environment_widens_what_is_piped_and_never_narrows_it(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert tables.console().width == width


def test_check_says_what_each_of_several_processes_holds(run):
    status, out, _ = run("check", SMOKE / "sedd.yaml", "--processes", "1,4", "--json")
    (found,) = json.loads(out)["recipes"]
    shares = {(one["parallel"], one["processes"]): one for one in found["shares"]}
    assert status == 0 and set(shares) == {(how, count) for how in ("ddp", "fsdp") for count in (1, 4)}
    alone = shares["ddp", 1]
    assert alone["held"]["parameters"] == 4 * found["parameters"]
    assert {**alone, "parallel": "fsdp"} == shares["fsdp", 1]
    assert shares["ddp", 4]["held"] == alone["held"]
    assert shares["ddp", 4]["flops"] == shares["fsdp", 4]["flops"] == alone["flops"] / 4
    assert shares["ddp", 4]["activations"] == shares["fsdp", 4]["activations"] < alone["activations"]
    rows = shares["fsdp", 4]["held"]
    assert alone["held"]["optimizer"] / 4 <= rows["optimizer"] < alone["held"]["optimizer"] / 3
    assert 0 < rows["gathered"] <= 8 * found["parameters"]  # two blocks are all of this network's
    assert "FLOPs/update" in run("check", SMOKE / "sedd.yaml", "--processes", "2")[1]


def test_the_memory_of_activations_grows_with_the_batch(run, tmp_path):
    text = "extends: {}\nname: b{}\ntrain: {{batch: {}, accumulate: {}}}\n"
    for i, (batch, accumulate) in enumerate([(8, 1), (64, 1), (64, 8)]):
        parent = Path(f"s{i}.yaml")
        (tmp_path / parent).write_text((SMOKE / "sedd.yaml").read_text())
        (tmp_path / "base.yaml").write_text((SMOKE / "base.yaml").read_text())
        (tmp_path / f"r{i}.yaml").write_text(text.format(parent, i, batch, accumulate))
    found = json.loads(run("check", "r0.yaml", "r1.yaml", "r2.yaml", "--json")[1])["recipes"]
    small, large, split = (one["training_bytes"] for one in found)
    assert small < split < large  # gradients of the micro-batches before are there too
    assert [one["tokens_per_step"] for one in found] == [8 * 32, 64 * 32, 64 * 32]


def test_check_reports_every_problem_of_every_file(run, tmp_path):
    recipe(tmp_path, "name: 3\ntrain: {steps: 0}\n", "a.yaml")
    recipe(tmp_path, "name: b\nx: !!python/object:os.system 1\n", "b.yaml")
    status, out, err = run("check", "a.yaml", "b.yaml", "nope.yaml", SMOKE / "sedd.yaml")
    assert status == 1
    assert err == ""
    for words in (
        "name: needs text matching",
        "train.steps: needs an integer ≥ 1; found 0",
        "backbone: recipe needs this",
        "b.yaml:2:4: tags are not read",
        "nope.yaml: there is no such file",
        "sedd.yaml",
    ):
        assert words in out
    found = json.loads(run("check", "a.yaml", "--json")[1])["recipes"][0]
    problem = next(problem for problem in found["problems"] if problem["path"] == "name")
    assert problem["message"].endswith("found 3 (put it in quotes)")


def test_check_sees_what_does_not_fit(run, tmp_path):
    recipe(tmp_path, f"extends: {Path(*['..'] * 9)}{SMOKE}/sedd.yaml\nbackbone: gpt2\nsampler: left_to_right\n")
    status, out, _ = run("check", "r.yaml")
    assert status == 1
    assert "a position of backbone 'gpt2' sees 'left', and process 'diffusion' needs 'all' or 'others'" in out
    assert re.search(r"What would fit: .*type: transformer\.", out)
    assert "sampler 'left_to_right' needs a NextTokenView" in out
    assert "What would fit: reverse" in out


def test_a_plugin_is_seen_by_its_own_recipe_only(run, tmp_path):
    (tmp_path / "bag.py").write_text(PLUGIN)
    base = f"extends: {Path(*['..'] * 9)}{SMOKE}/sedd.yaml\nbackbone: {{type: toy_bag}}\n"
    recipe(tmp_path, base + "plugins: [./bag.py]\n", "with.yaml")
    recipe(tmp_path, base, "without.yaml")
    status, out, _ = run("check", "with.yaml", "without.yaml", "--json")
    assert status == 1
    with_it, without = json.loads(out)["recipes"]
    assert with_it["problems"] == []
    assert with_it["parameters"] == 258 * 8 + 8 * 258 + 258
    assert without["problems"][0]["path"] == "backbone.type"


def test_contracts_of_a_plugin(run, tmp_path):
    (tmp_path / "bag.py").write_text(PLUGIN)
    status, out, _ = run("check", "--contract", "bag.py")
    assert status == 1  # it says that a position sees all, and it sees only itself
    assert out.startswith("backbone toy_bag: fails its contract")
    (tmp_path / "blind.py").write_text("x = 1")
    status, out, _ = run("check", "--contract", "blind.py")
    assert status == 1
    assert "registers no part" in out
    (tmp_path / "bad.py").write_text("x = 1\n1 / 0")
    found = json.loads(run("check", "--contract", "bad.py", "--json")[1])["contracts"]
    assert "bad.py:2: ZeroDivisionError" in found[0]["problems"][0]


def test_the_plugin_of_the_docs_keeps_its_contract(run):
    file = ROOT / "docs" / "plugins" / "my_gru.py"
    status, out, _ = run("check", "--contract", file)
    assert (status, out) == (0, "backbone my_gru: keeps its contract\n")
