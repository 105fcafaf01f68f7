"""Runs in lm-evaluation-harness: as its own GPT-2 class says, and as scoring says for diffusion."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch

from workbench.publish.exporting import give_out
from workbench.tasks.prepare import prepare

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra: tasks")
from lm_eval.api.instance import Instance  # noqa: E402

DOCS = [
    {"query": "the people of", "choices": [" the state", " a nation in peace", " law"], "gold": 0},
    {"query": "in that year the law was", "choices": [" the", " one of them", " public"], "gold": 1},
    {"query": "all " * 20 + "their", "choices": [" work and peace", " power"], "gold": 1},  # longer than a block
]


def model(run, **settings):
    from workbench.tasks.model import Workbench

    return Workbench(run=str(run.path), **settings)


def requests(kind="loglikelihood"):
    return [Instance(kind, doc, (doc["query"], choice), 0) for doc in DOCS for choice in doc["choices"]]


@pytest.fixture(scope="module")
def theirs(smoke, tmp_path_factory):
    """The smoke GPT-2, exported, in the harness's own class, with its bytes as a tokenizer of transformers."""
    transformers = pytest.importorskip("transformers", reason="the harness's own class stands on it")
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    run, folder = smoke("gpt2"), tmp_path_factory.mktemp("exported") / "out"
    give_out(run.path, folder)
    names = pre_tokenizers.ByteLevel.alphabet()  # byte b of ASCII's printable part is its own character there
    table = {bytes([b]).decode("latin-1"): b for b in (*range(33, 127), *range(161, 173), *range(174, 256))}
    rest = [b for b in range(256) if b not in table.values()]
    table |= {chr(256 + i): b for i, b in enumerate(rest)}
    assert set(table) == set(names)
    made = Tokenizer(models.BPE(vocab=table | {"<eos>": 256}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", bos_token="<eos>")
    net = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    return HFLM(pretrained=net, tokenizer=tokenizer, max_length=32, batch_size=4, device="cpu")


def test_left_to_right_is_the_harness_own_gpt2(smoke, theirs):
    ours = model(smoke("gpt2"), start=False, batch_size=4)
    found, due = ours.loglikelihood(requests(), True), theirs.loglikelihood(requests(), True)
    np.testing.assert_allclose([a for a, _ in found], [a for a, _ in due], atol=1e-4)
    assert [bool(b) for _, b in found] == [bool(b) for _, b in due]
    assert ours.get_model_info()["contexts_cut"] == 3  # 85 + 15, 85 + 6 and 24 + 12 tokens of 33
    texts = [Instance("loglikelihood_rolling", {"t": i}, (DOCS[2]["query"][:n],), 0) for i, n in enumerate((5, 32, 77))]
    rolled = ours.loglikelihood_rolling(texts, True)
    np.testing.assert_allclose(rolled, theirs.loglikelihood_rolling(texts, True), atol=1e-4)


def test_a_task_file_gives_the_same_accuracies(smoke, theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from lm_eval.tasks import TaskManager

    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    ready = prepare("choices", tmp_path / "raw.jsonl", tmp_path / "out")
    tasks = TaskManager(include_path=str(ready.folder), include_defaults=False)
    got = [
        lm_eval.simple_evaluate(model=one, tasks=[ready.task], task_manager=tasks, bootstrap_iters=0)["results"]
        for one in (model(smoke("gpt2"), start=False), theirs)
    ]
    for name in ("acc,none", "acc_norm,none"):
        assert got[0][ready.task][name] == pytest.approx(got[1][ready.task][name], abs=1e-4)


def test_choices_of_one_question_share_noise_in_any_order_and_batch(smoke):
    asked = requests()
    found = model(smoke("sedd"), draws=3).loglikelihood(asked, True)
    again = model(smoke("sedd"), draws=3, batch_size=1).loglikelihood(asked[::-1], True)[::-1]
    np.testing.assert_allclose([a for a, _ in found], [a for a, _ in again], rtol=1e-5)
    twice = [asked[0], asked[0]]
    assert len({a for a, _ in model(smoke("sedd"), draws=3).loglikelihood(twice, True)}) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the harness's cuda:0 is a device here")
def test_the_harness_own_device_is_no_wish_where_there_is_none(smoke):
    assert str(model(smoke("gpt2"), device="cuda:0").opened.device) == "cpu"


def test_pmi_takes_off_the_continuation_by_itself(smoke):
    run, asked = smoke("gpt2"), requests()
    plain, half = (model(run, pmi=w).loglikelihood(asked, True) for w in (0.0, 0.5))
    alone = [Instance("loglikelihood", one.doc, ("", one.args[1]), 0) for one in asked]
    by_itself = model(run).loglikelihood(alone, True)
    for a, b, c in zip(plain, half, by_itself, strict=True):
        assert b[0] == pytest.approx(a[0] - 0.5 * c[0], abs=1e-4)


@pytest.mark.parametrize("name", ["sedd", "uniform", "gpt2"])
def test_whole_texts_and_generation(smoke, name):
    made = model(smoke(name), scoring="full", draws=2, gen_tokens=6)
    assert all(np.isfinite(a) and a < 0 for a, _ in made.loglikelihood(requests(), True))
    writing = [Instance("generate_until", doc, (doc["query"], {"until": ["e"]}), 0) for doc in DOCS]
    texts = made.generate_until(writing, True)
    assert len(texts) == 3 and not any("e" in text for text in texts)


def test_a_run_is_asked_in_its_evaluation(smoke, tmp_path, monkeypatch):
    """Accuracy is the share of items whose right choice the harness would take; items are those of the file."""
    from lm_eval import tasks

    from workbench.core.errors import WorkbenchError
    from workbench.metrics.asking import Asking
    from workbench.metrics.base import Evidence
    from workbench.metrics.tasks import Accuracy
    from workbench.opening import open_trained
    from workbench.tasks.asking import answered

    raw = tmp_path / "mine.jsonl"
    raw.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), encoding="utf-8")
    prepare("choices", raw, tmp_path / "tasks")
    (tmp_path / "tasks" / "both.yaml").write_text("group: both\ntask: [workbench_choices, {task: other}]\n")
    monkeypatch.setattr(tasks, "TaskManager", cache(tasks.TaskManager))  # it reads thousands of files
    opened = open_trained(smoke("gpt2").path)
    found = answered(opened, Asking(["workbench_choices"], str(tmp_path / "tasks"), batch=4))["workbench_choices"]
    scores = np.array([log_p for log_p, _ in model(smoke("gpt2"), batch_size=4).loglikelihood(requests(), True)])
    ends = np.cumsum([len(doc["choices"]) for doc in DOCS])[:-1]
    pairs = zip(np.split(scores, ends), DOCS, strict=True)
    assert found.right == [float(part.argmax() == doc["gold"]) for part, doc in pairs]
    (value,) = Accuracy()(Evidence(answers={"workbench_choices": found}))
    assert value.name == "accuracy_workbench_choices" and value.value == pytest.approx(np.mean(found.right))
    assert len(set(found.documents)) == 3 and value.units.key == found.key
    for several, inside in (("both", "workbench_choices, other"), ("ai2_arc", "arc_challenge, arc_easy")):
        with pytest.raises(WorkbenchError, match=f"'{several}' is no task but a name for several; .*: {inside}"):
            answered(opened, Asking(["workbench_choices", several], str(tmp_path / "tasks")))
    with pytest.raises(WorkbenchError, match="no task 'nothing'"):
        answered(opened, Asking(["nothing"], str(tmp_path / "tasks")))
