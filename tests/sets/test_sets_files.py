"""Evaluation sets read from their usual files: whole ones are taken, all others refused with what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sets.files import PASSAGES, WIKI, passages, real, wiki
from workbench.core.errors import WorkbenchError
from workbench.metrics.sets import EvalSet
from workbench.sets import detokenise
from workbench.sets.published import Lambada, Lm1b, Ptb, Published, WikiText2, WikiText103
from workbench.sets.text import TextSet


@pytest.mark.parametrize(
    ("made", "file", "rows", "groups"),
    [
        (Lambada(), "lambada/lambada_test.jsonl", 5_153, 5_153),
        (WikiText2(split="test"), "wikitext2/wiki.test.raw", 4_358, 61),
        (WikiText2(split="valid"), "wikitext2/wiki.valid.raw", 3_760, 61),
        (WikiText2(split="test"), "wikitext2/wiki.test.tokens", 4_358, 61),
        (WikiText103(), "wikitext103/wiki.test.tokens", 4_358, 61),
        (Lm1b(), "lm1b/heldout-00000-of-00050.txt", 6_075, 6_075),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_real_files_are_whole(made: Published, file: str, rows: int, groups: int) -> None:
    """60 articles, and what stands before the first."""
    made.path = str(real(file))
    found = made.rows("sedd")
    assert len(found.texts) == rows
    assert len(set(found.group_N.tolist())) == groups
    assert ("<unk>" in found.note) == file.endswith(".tokens")


def test_a_cut_real_file_is_refused(tmp_path: Path) -> None:
    whole = real("wikitext2/wiki.test.raw").read_bytes()
    cut = tmp_path / "wiki.test.raw"
    cut.write_bytes(whole[:-40])
    with pytest.raises(WorkbenchError, match=r"4,35\d lines of 241,2\d\d words, and the test split of .* has 4,358"):
        WikiText2(str(cut), "test").rows("sedd")
    with pytest.raises(WorkbenchError, match="this is its test split: set `split: test`"):
        WikiText2(str(real("wikitext2/wiki.test.raw"))).rows("sedd")


def test_the_split_is_the_protocols_own(tmp_path: Path) -> None:
    """WikiText-2 is reported on train by SEDD, on validation by MDLM, on test by others; LAMBADA has one split."""
    for split in ("train", "valid", "test"):
        wiki(tmp_path, f"wiki.{split}.raw")
    for protocol, due in (("sedd", "train"), ("mdlm", "valid"), ("sliding", "test")):
        found = WikiText2(str(tmp_path), whole=False).rows(protocol)
        assert f"{due} split" in found.source
        assert "figures published" not in found.note
    assert "valid split" in WikiText103(str(tmp_path), whole=False).rows("mdlm").source
    other = WikiText2(str(tmp_path), "test", whole=False).rows("sedd")
    assert "test split; figures published by protocol sedd are of train" in other.note
    passages(tmp_path)
    assert "test split" in Lambada(str(tmp_path), whole=False).rows("mdlm").source


def test_lines_of_wikitext(tmp_path: Path) -> None:
    """Empty lines are rows without text; articles are groups; sections open none."""
    found = WikiText2(str(wiki(tmp_path)), whole=False).rows("")
    assert len(found.texts) == len(WIKI)
    assert found.texts[:4] == ["", " = First Thing =\n", "", " A line, with a-sign and 1,000 words.\n"]
    assert found.texts[5] == " == A section ==\n"
    assert found.group_N.tolist() == [0] + [1] * 8 + [2] * 4
    assert "an excerpt" in found.note


def test_an_excerpt_is_refused_unless_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"3 passages of 18 words, and .* has 5,153 passages of 305,998"):
        Lambada(str(passages(tmp_path))).rows("sedd")
    rows = Lambada(str(passages(tmp_path)), whole=False).rows("sedd")
    assert rows.texts[0] == '\n"Who is there?" he said.\n\nNobody spoke.'


def test_mis_encoded_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ptb.test.txt"
    file.write_bytes("a caf\xe9 .\n".encode("latin-1"))
    with pytest.raises(WorkbenchError, match=r"byte 5 \(0xe9\) is no UTF-8"):
        Ptb(str(file)).rows("sedd")
    file.write_bytes("fine .\nâ€œTwiceâ€\x9d .\n".encode())
    with pytest.raises(WorkbenchError, match="row 2: its characters were encoded twice"):
        Ptb(str(file)).rows("sedd")
    lines = tmp_path / "lambada_test.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "tw')
    with pytest.raises(WorkbenchError, match="line 2: no JSON"):
        Lambada(str(lines)).rows("sedd")
    lines.write_text('{"passage": "one"}\n')
    with pytest.raises(WorkbenchError, match="no text under 'text'"):
        Lambada(str(lines)).rows("sedd")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="no file or folder"):
        Ptb(str(tmp_path / "none")).rows("sedd")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(WorkbenchError, match=r"holds no file of the test split.*notes\.md"):
        Ptb(str(tmp_path)).rows("sedd")
    with pytest.raises(WorkbenchError, match="has no train split"):
        Lambada(str(passages(tmp_path)), "train").rows("sedd")
    with pytest.raises(WorkbenchError, match="set `path` to its files"):
        Ptb().rows("sedd")
    (tmp_path / "ptb.valid.txt").write_text("")
    with pytest.raises(WorkbenchError, match="holds no text"):
        Ptb(str(tmp_path), whole=False).rows("mdlm")


def test_parquet_is_read_as_lines_are(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    plain = WikiText2(str(wiki(tmp_path)), whole=False).rows("")
    rows = [line + " \n" if line.strip() else "" for line in (one.removesuffix(" ") for one in WIKI)]
    folder = tmp_path / "hub"
    folder.mkdir()
    parquet.write_table(pyarrow.table({"text": rows}), folder / "test-00000-of-00001.parquet")
    found = WikiText2(str(folder), whole=False).rows("")
    assert found.texts == plain.texts
    assert found.group_N.tolist() == plain.group_N.tolist()
    parquet.write_table(pyarrow.table({"words": rows}), folder / "test-00000-of-00001.parquet")
    with pytest.raises(WorkbenchError, match="no column text or sentence; it holds: words"):
        WikiText2(str(folder), whole=False).rows("")
    (folder / "test-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(WorkbenchError, match="damaged or cut off"):
        WikiText2(str(folder), whole=False).rows("")


def test_raw_files_go_before_those_with_words_replaced(tmp_path: Path) -> None:
    wiki(tmp_path, "wiki.test.tokens").write_text(" a <unk> b \n")
    wiki(tmp_path)
    assert len(WikiText2(str(tmp_path), whole=False).rows("").texts) == len(WIKI)


def test_any_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "three"}) + "\n")
    found = TextSet(str(tmp_path), separator="\n\n").rows("sedd")
    assert found.texts == ["one", "two", "three"]
    assert found.group_N.tolist() == [0, 1, 2]
    with pytest.raises(WorkbenchError, match="3 documents, where 4 are due"):
        TextSet(str(tmp_path), separator="\n\n", documents=4).rows("sedd")


@pytest.mark.parametrize(
    ("rule", "given", "due"),
    [
        (detokenise.wikitext, ' He said " no " , then left ( early ) . \n', ' He said "no", then left (early).\n'),
        (detokenise.wikitext, " the boys ' club ; it 's 5 ° C : 3 @.@ 5 \n", " the boys'club; it's 5°C: 3.5\n"),
        (detokenise.wikitext, " = = = Deep = = = \n", " === Deep ===\n"),
        (detokenise.ptb, "it 's n't N N for $ N at <unk> 's 1\\/2", "it'sn't 1 1 for $1 at ?'s 1/2"),
        (detokenise.lm1b, 'He said : " It is late . " Is it ?', 'He said: "It is late." Is it?'),
        (detokenise.lm1b, "Sam 's $ 5 ( or £ 4 ) at http : / / a now .", "Sam's $5 (or £4) at http://a now."),
        (detokenise.lambada, " “Oh,” she said. ", '\n"Oh," she said.'),
    ],
)
def test_detokenisers(rule, given: str, due: str) -> None:
    """The published rules to the letter, also where they take two apostrophes for a pair of quotes."""
    assert rule(given) == due


def test_every_set_says_what_a_whole_one_is() -> None:
    for name in ("lambada", "wikitext2", "wikitext103", "ptb", "lm1b"):
        part = EvalSet.lookup(name)
        assert issubclass(part, Published)
        assert all(whole.rows for wholes in part.wholes.values() for whole in wholes)
        assert set(part.reported.values()) <= set(part.wholes)
    assert PASSAGES
