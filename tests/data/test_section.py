"""The whole way: corpus, tokenizer, blocks, found again in the cache."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from workbench.data.base import Corpus, Tokenizer
from workbench.data.bpe import Bpe
from workbench.data.corpora import PythonDocs, Text
from workbench.data.section import Data
from workbench.data.storage import DataError
from workbench.data.tokenizers import Bytes, Chars
from workbench.data.windows import Windows


@pytest.mark.parametrize("tokenizer", [Bytes, Chars, lambda: Bpe(400)])
def test_prepared_data_is_the_text(tmp_path: Path, tokenizer) -> None:
    made = Data(PythonDocs(), tokenizer(), 64).prepare(tmp_path)
    for split, blocks in (("train", made.train), ("valid", made.valid)):
        facts = made.meta[split]
        texts = list(PythonDocs().documents(split))
        assert facts["documents"] == len(texts)
        assert facts["bytes"] == sum(len(text.encode()) for text in texts)
        assert facts["blocks"] == len(blocks) and facts["tokens"] == len(blocks) * 64 + facts["dropped_tokens"]
        said = made.tokenizer.decode(
            np.concatenate([blocks[np.arange(len(blocks))].reshape(-1), blocks.ids[-blocks.dropped :]])
        )
        assert said == "".join(texts)
    assert made.meta["length"] == 64
    assert made.meta["tokenizer"]["vocab"] == made.tokenizer.vocab


def test_a_second_time_nothing_is_read_or_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Data(PythonDocs(), Bpe(400), 64).prepare(tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("read or trained again")

    monkeypatch.setattr(PythonDocs, "documents", never)
    monkeypatch.setattr(Bpe, "train", never)
    again = Data(PythonDocs(), Bpe(400), 64).prepare(tmp_path)
    assert again.tokenizer.digest() == first.tokenizer.digest()
    assert again.train[3].tolist() == first.train[3].tolist()
    longer = Data(PythonDocs(), Bpe(400), 128).prepare(tmp_path)  # another length shares the stream
    assert longer.train[0][:64].tolist() == first.train[0].tolist()


def test_other_settings_make_another_tokenizer(tmp_path: Path) -> None:
    one = Data(PythonDocs(), Bpe(400), 64).prepare(tmp_path)
    other = Data(PythonDocs(), Bpe(401), 64).prepare(tmp_path)
    assert (one.tokenizer.vocab, other.tokenizer.vocab) == (400, 401)
    assert len(list((tmp_path / "tokenizers").iterdir())) == 2


def test_two_at_once_agree(tmp_path: Path) -> None:
    made = []

    def work() -> None:
        made.append(Data(PythonDocs(), Bpe(300), 32).prepare(tmp_path))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({prepared.tokenizer.digest() for prepared in made}) == 1
    assert len(made) == 3 and all(len(p.train) == len(made[0].train) for p in made)


def test_progress_is_told(tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int | None]]] = {}
    Data(PythonDocs(), Bpe(300), 32).prepare(tmp_path, lambda stage, *at: told.setdefault(stage, []).append(at))
    assert list(told) == ["training the tokenizer", "packing valid", "packing train"]
    count = PythonDocs().count("train")
    assert told["packing train"][-1] == (count, count)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one short document")
    one = str(tmp_path / "one.txt")
    with pytest.raises(DataError, match=r"valid split .* holds no text"):
        Data(Text([one]), Bytes(), 4).prepare(tmp_path / "cache")
    with pytest.raises(DataError, match=r"train split .* holds no text"):
        Data(Text([one], valid=[one]), Bytes(), 4).prepare(tmp_path / "cache")
    (tmp_path / "two.txt").write_text("another")
    with pytest.raises(DataError, match="valid split has 8 tokens, less than one block of 9"):
        Data(Text([one], valid=[str(tmp_path / "two.txt")]), Bytes(), 9).prepare(tmp_path / "cache")
    with pytest.raises(DataError, match="no file or folder"):
        Data(Text([one + "x"]), Bytes(), 4).prepare(tmp_path / "cache")
    (tmp_path / "bad.txt").write_bytes(b"ok \xff")
    with pytest.raises(DataError, match=r"bad\.txt: byte 3"):
        Data(Text([one, str(tmp_path / "bad.txt")], hold_out=2), Bytes(), 4).prepare(tmp_path / "cache")


def test_batches_come_from_the_train_split(tmp_path: Path) -> None:
    made = Data(PythonDocs(), Bytes(), 32).prepare(tmp_path)
    x0_BL, _ = Windows(made.train, 4, 0).batch(0)
    whole = b"\n".join(text.encode() for text in PythonDocs().documents("train"))
    for row in x0_BL:
        parts = made.tokenizer.decode_bytes(row)
        assert 256 in row or parts in whole


def test_parts_resolve_and_build_from_plain_data(tmp_path: Path) -> None:
    from workbench.core.spec import build, resolve

    node, problems = resolve(Data, {"corpus": "python_docs", "tokenizer": {"type": "bpe", "vocab": 300}, "length": 16})
    assert not problems
    made = build(node, {})
    assert isinstance(made.corpus, PythonDocs) and made.tokenizer.planned_vocab == 300
    assert len(made.prepare(tmp_path).train) > 1000
    _, problems = resolve(Data, {"corpus": "python_docs", "tokenizer": {"type": "bpe", "vocab": 200}, "length": 0})
    assert {problem.path for problem in problems} == {"tokenizer.vocab", "length"}


def test_every_part_has_its_settings_documented() -> None:
    import workbench.data.hub  # noqa: F401
    from workbench.core.part import settings

    for kind in (Corpus, Tokenizer):
        for part in kind.registered.values():
            assert all(setting.doc for setting in settings(part).values()), part
