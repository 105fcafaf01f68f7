"""Protocols by hand, on real files, and against transformers' own likelihood of the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from backbones.gpt2 import GPT2
from backbones.weights import gpt2
from tests.sets.files import real
from workbench.assemble import Model
from workbench.core.errors import WorkbenchError
from workbench.core.rng import Rng
from workbench.data.bpe import Gpt2
from workbench.data.storage import DataError
from workbench.data.tokenizers import Bytes
from workbench.evaluate import Examiner
from workbench.metrics.base import Evaluation
from workbench.metrics.protocols import Mdlm, Sedd, Sliding
from workbench.metrics.set_likelihood import SetLikelihood
from workbench.metrics.sets import Protocol
from workbench.processes.autoregressive import Autoregressive
from workbench.processes.base import Shell
from workbench.sets.measuring import on_sets
from workbench.sets.published import Lambada, Lm1b, Published, WikiText2
from workbench.sets.reading import rows_of
from workbench.sets.text import TextSet

ROWS = [np.arange(size) + 10 * i for i, size in enumerate((5, 0, 3, 6))]
"""Four rows of 14 tokens, 18 with their ends."""
END = 99
STREAM = [0, 1, 2, 3, 4, END, END, 20, 21, 22, END, 30, 31, 32, 33, 34, 35, END]


def test_sedd_packs_end_to_end() -> None:
    cut = Sedd().cut(ROWS, END, 4)
    assert cut.tokens_NT.tolist() == [STREAM[i : i + 4] for i in (0, 4, 8, 12)]
    assert (cut.stream, cut.dropped, cut.told_N.tolist(), cut.start_N.tolist()) == (18, 2, [0] * 4, [0, 4, 8, 12])


def test_mdlm_wraps_each_block() -> None:
    cut = Mdlm().cut(ROWS, END, 6)
    assert cut.tokens_NT.tolist() == [[END, *STREAM[i : i + 4], END] for i in (0, 4, 8, 12)]
    assert (cut.stream, cut.dropped, cut.told_N.tolist(), cut.start_N.tolist()) == (18, 2, [1] * 4, [0, 4, 8, 12])


def test_rows_joined_a_few_at_a_time_drop_more() -> None:
    """As the published code does, a thousand at a time."""
    cut = Sedd(rows=2).cut(ROWS, END, 4)
    assert cut.tokens_NT.tolist() == [STREAM[i : i + 4] for i in (0, 7, 11)]
    assert (cut.stream, cut.dropped, cut.start_N.tolist()) == (18, 6, [0, 7, 11])


COUNTED = {1: [6] + [1] * 12, 4: [6, 4, 4, 4], 5: [6, 5, 5, 2], 6: [6, 6, 6]}


@pytest.mark.parametrize(("stride", "counted"), COUNTED.items())
def test_a_sliding_window_counts_each_token_once(stride: int, counted: list[int]) -> None:
    cut = Sliding(stride).cut(ROWS, END, 6)
    whole = [END, *STREAM]
    assert (7 - cut.told_N).tolist() == counted
    assert cut.start_N.tolist() == np.cumsum([0, *counted[:-1]]).tolist()
    for row, start, count in zip(cut.tokens_NT.tolist(), cut.start_N.tolist(), counted, strict=True):
        assert row == whole[start + count - 6 : start + count + 1]
    assert (cut.stream, cut.dropped) == (18, 0)


@pytest.mark.parametrize("protocol", [Sedd(), Mdlm(), Sliding()], ids=lambda one: one.type_name)
def test_a_set_shorter_than_a_block_is_refused(protocol: Protocol) -> None:
    with pytest.raises(WorkbenchError, match=r"18 tokens, less than one block of 6[24]"):
        protocol.cut(ROWS, END, 64)


@pytest.fixture(scope="module")
def tokenizer() -> Gpt2:
    try:
        return Gpt2()
    except DataError as error:
        pytest.skip(str(error))


def tokens_of(tokenizer: Gpt2, texts: Sequence[str]) -> int:
    return sum(len(ids) for ids in tokenizer.encode_many(list(texts)))


def test_known_counts_of_gpt2_tokens(tokenizer: Gpt2) -> None:
    """Those that are known elsewhere: LAMBADA as it stands; WikiText-2's lines with empty lines between them."""
    texts = rows_of(real("lambada/lambada_test.jsonl"))
    assert tokens_of(tokenizer, texts) == 430_230
    lines = [WikiText2().row(row) for row in rows_of(real("wikitext2/wiki.test.raw"))]
    assert tokens_of(tokenizer, ["\n\n".join(lines)]) == 287_644


REAL = [
    (Lambada(), "lambada/lambada_test.jsonl", 428_743),
    (WikiText2(split="test"), "wikitext2/wiki.test.raw", 274_796),
    (WikiText2(split="valid"), "wikitext2/wiki.valid.raw", 239_912),
    (Lm1b(), "lm1b/heldout-00000-of-00050.txt", 176_267),
]


@pytest.mark.parametrize(("made", "file", "stream"), REAL, ids=[file for _, file, _ in REAL])
def test_blocks_of_real_sets(tokenizer: Gpt2, made: Published, file: str, stream: int) -> None:
    """Detokenised tokens and ends of rows are the stream; whole blocks and the rest make it up."""
    made.path = str(real(file))
    ids = tokenizer.encode_many(list(made.rows("sedd").texts))
    sedd, mdlm, sliding = (one.cut(ids, tokenizer.eos, 1024) for one in (Sedd(), Mdlm(), Sliding(512)))
    assert sedd.stream == mdlm.stream == sliding.stream == stream
    assert (sedd.tokens_NT.shape, sedd.dropped) == ((stream // 1024, 1024), stream % 1024)
    assert (mdlm.tokens_NT.shape, mdlm.dropped) == ((stream // 1022, 1024), stream % 1022)
    assert int((1025 - sliding.told_N).sum()) == stream


@pytest.fixture(scope="module")
def pair():
    """Random weights in transformers' GPT-2 and in ours, over bytes."""
    transformers = pytest.importorskip("transformers", reason="the reference GPT-2 is in transformers")
    config = transformers.GPT2Config(vocab_size=257, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    ours = GPT2(257, 257, 16, dim=32, depth=2, heads=4).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    gpt2.load(ours, theirs.state_dict())
    return theirs, Model(Bytes(), Autoregressive(257, 256, 16), Shell(ours), 16)


def their_nats(theirs, tokens: list[int], told: int) -> float:
    """Of tokens [told:] after those before them, by transformers' loss."""
    x = torch.tensor([tokens])
    labels = x.clone()
    labels[:, :told] = -100
    logits = theirs(x[:, :-1]).logits[0].double()
    return float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum"))


@pytest.mark.parametrize("protocol", [Sedd(), Mdlm(), Sliding(stride=5)], ids=lambda one: one.type_name)
def test_likelihood_is_that_of_transformers(pair, tmp_path, protocol: Protocol) -> None:
    theirs, model = pair
    (tmp_path / "set.txt").write_text("The people of the state.\nA law in peace, and all their work.\nPower.\n" * 3)
    sets = {"mine": TextSet(str(tmp_path / "set.txt"), separator="\n")}
    evaluation = Evaluation([SetLikelihood()], batch=4, sets=sets, protocol=protocol)
    examiner = Examiner(model, None, None, None, Rng(0), torch.device("cpu"), "fp32")
    with torch.no_grad():
        found = on_sets(examiner, evaluation, lambda what, share: None)["mine"]
        assert found.error == ""
        ids = Bytes().encode_many(list(sets["mine"].rows("").texts))
        cut = protocol.cut(ids, 256, 16)
        due = []
        for row, told in zip(cut.tokens_NT.tolist(), cut.told_N.tolist(), strict=True):
            due.append(their_nats(theirs, row, told) if told else their_nats(theirs, [256, *row], 1))
    np.testing.assert_allclose(found.held.nats_BK[:, 0], due, rtol=1e-5)
    assert found.held.kind == "exact"
    assert found.counted_B.sum() == (cut.tokens_NT.shape[1] - cut.told_N).sum()
