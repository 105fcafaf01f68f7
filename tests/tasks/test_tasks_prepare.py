"""Raw files become tasks, or are refused with what was expected."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from tests.tasks.raw import goals, passages, six_lines
from workbench.cli.main import main
from workbench.core.errors import WorkbenchError
from workbench.core.reading import read_yaml
from workbench.tasks.formats import FORMATS
from workbench.tasks.prepare import prepare


def test_whole_files_become_tasks(tmp_path, capsys):
    (tmp_path / "lambada_test.jsonl").write_text(passages(5153))
    (tmp_path / "hellaswag_val_full.txt.bz2").write_bytes(bz2.compress(six_lines(10042).encode()))
    (tmp_path / "dev.jsonl").write_text(goals(1838))
    (tmp_path / "dev-labels.lst").write_text("0\n1\n" * 919)
    (tmp_path / "mine.jsonl").write_text('{"query": "a", "choices": ["x", "y"], "gold": 1}\n')
    files = {"lambada": "lambada_test.jsonl", "hellaswag": "hellaswag_val_full.txt.bz2", "piqa": "dev.jsonl",
             "choices": "mine.jsonl"}  # fmt: skip
    assert files.keys() == FORMATS.keys()
    for name, file in files.items():
        assert main(["tasks", "prepare", name, str(tmp_path / file), "--to", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        assert f"{FORMATS[name].count or 1:,} documents" in said and f"--tasks workbench_{name}" in said
        task = read_yaml(tmp_path / "out" / f"workbench_{name}.yaml")
        data = task["dataset_kwargs"]["data_files"]["test"]
        assert task["task"] == f"workbench_{name}" and data == str(tmp_path / "out" / f"{name}.jsonl")
        docs = [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]
        assert len(docs) == (FORMATS[name].count or 1)
    assert docs == [{"query": "a", "choices": ["x", "y"], "gold": 1}]


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("lambada", passages(5152).encode(), "5,152 documents, and lambada has 5,153"),
        ("lambada", passages(3).encode()[:-12], "raw:3: no JSON"),
        ("lambada", b'{"txt": "a b"}\n', "raw:1: no str 'text'"),
        ("lambada", b'{"text": "one"}\n', "without a last word"),
        ("lambada", '{"text": "a café now"}\n'.encode("latin-1"), "cannot be read .*utf-8"),
        ("lambada", '{"text": "a caf\u00c3\u00a9 now"}\n'.encode(), "raw:1: its characters were encoded twice"),
        ("hellaswag", six_lines(10042).encode()[:-40], "raw:60247: fewer than six lines"),
        ("hellaswag", six_lines(2).replace("\n1\n", "\n4\n").encode(), "raw:8: '4' is no number of an ending"),
        ("hellaswag", six_lines(10041).encode(), "10,041 documents, and hellaswag has 10,042"),
        ("piqa", goals(1838).encode(), "raw-labels.lst cannot be read"),
        ("choices", b"", "0 documents, and choices has at least one"),
        ("choices", b'{"query": "a", "choices": ["x", "y"], "gold": 2}\n', "gold 2 is none of 2 choices"),
        ("choices", b'{"query": "a", "choices": ["x"], "gold": 0}\n', "fewer than two choices"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path, name, raw, said):
    (tmp_path / "raw").write_bytes(raw)
    with pytest.raises(WorkbenchError, match=said) as error:
        prepare(name, tmp_path / "raw", tmp_path / "out")
    assert f"Expected {FORMATS[name].expects}" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_labels_and_archives_are_whole(tmp_path):
    (tmp_path / "dev.jsonl").write_text(goals(1838))
    for labels, said in (("0\n" * 1837, "1,837 labels of 1,838"), ("0\n" * 1837 + "2\n", "'2' is no label")):
        (tmp_path / "dev-labels.lst").write_text(labels)
        with pytest.raises(WorkbenchError, match=said):
            prepare("piqa", tmp_path / "dev.jsonl", tmp_path / "out")
    whole = bz2.compress(six_lines(10042).encode())
    (tmp_path / "cut.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkbenchError, match=r"cut\.bz2 cannot be read"):
        prepare("hellaswag", tmp_path / "cut.bz2", tmp_path / "out")
    with pytest.raises(WorkbenchError, match="Did you mean 'piqa'"):
        prepare("piqua", tmp_path / "dev.jsonl", tmp_path / "out")
