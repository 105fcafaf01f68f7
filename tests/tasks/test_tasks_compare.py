"""Items of the harness's files: those of the task that is asked for, line by line, or why not."""

from __future__ import annotations

import json

import pytest

from workbench.core.errors import WorkbenchError
from workbench.tasks.compare import compare, items

DATE = "2026-11-30T00-48-49.123456"


def write(folder, name, records):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    (folder / f"samples_{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def item(number, acc, text=""):
    return {"doc_id": number, "doc_hash": f"h{number}", "acc": acc, "doc": {"text": text}}


def test_a_task_whose_name_begins_another_is_not_mixed_with_it(tmp_path):
    write(tmp_path, f"lambada_{DATE}", [item(1, 1.0)])
    for other in ("lambada_openai", "lambada_2026", "lambada_mt_de"):
        write(tmp_path, f"{other}_2027{DATE[4:]}", [item(2, 0.0)])
    assert items(tmp_path, "lambada") == {"h1": 1.0}
    write(tmp_path / "later", f"lambada_2027{DATE[4:]}", [item(3, 1.0)])
    assert items(tmp_path, "lambada") == {"h3": 1.0}
    with pytest.raises(WorkbenchError, match="has no samples_lamb_<date>"):
        items(tmp_path, "lamb")


def test_documents_may_hold_any_end_of_a_line(tmp_path):
    texts = ("a\u2028b", "a\x85b", "a\x0cb")
    write(tmp_path, f"t_{DATE}", [item(i, float(i % 2), text) for i, text in enumerate(texts)])
    assert items(tmp_path, "t") == {"h0": 0.0, "h1": 1.0, "h2": 0.0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no items"),
        (b'{"doc_hash": "\xff"}\n', "cannot be read .*utf-8"),
        (b'{"doc_hash": "a", "acc": 1.0}\n\n', ":2: no item"),
        (b"[]\n", ":1: no item with a figure 'acc'"),
    ],
)
def test_what_is_no_file_of_items_is_refused(tmp_path, content, said):
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        (tmp_path / side / f"samples_t_{DATE}.jsonl").write_bytes(content)
    with pytest.raises(WorkbenchError, match=said):
        compare(tmp_path / "ours", tmp_path / "theirs", "t")
