"""The report: what it shows, that it survives damaged folders and hostile names, and that it never computes."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from workbench.core.errors import WorkbenchError
from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.report import markdown, tables, terminal, words
from workbench.report.collect import collect, differing
from workbench.report.curves import all_plots, alone
from workbench.report.tables import main_table, print_table, significant
from workbench.report.write import write_report

sys.path.insert(0, str(Path(__file__).parent))
from folders import make_run, results

HOSTILE = "<script>alert(1)</script> & [red]\"'`|$x$"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path, "sedd"), make_run(tmp_path, "gpt2", "autoregressive", "fedcba9876543210")]


class Reader(html.parser.HTMLParser):
    """Tags and text of a page."""

    VOID = ("meta", "br", "line", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text, self.open, self.sources = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_of_two_runs(pair: list[Path], tmp_path: Path) -> None:
    written = write_report(pair, tmp_path / "report")
    page = Reader(written.html.read_text(encoding="utf-8"))
    assert not page.open
    assert page.sources == []
    assert page.tags.count("svg") == 5 + 2
    text = " ".join(page.text).replace("\u00a0", " ")
    for shown in ("≤ 1.812 ± 0.015", "1.603 ± 0.015", "≥ 30.8 %", "held-out text", "39,000", "3.42 M", "95.4 %"):
        assert shown in text
        assert shown in written.markdown.read_text(encoding="utf-8").replace("\\", "")
    assert "at most 1.812 ± 0.015 bits per byte, at least 30.8 % below its unigram" in text
    assert "process.graph.type" in text
    assert "a" * 40 + " with uncommitted changes" in text
    data = json.loads(written.data.read_text(encoding="utf-8"))
    assert [run["label"] for run in data["runs"]] == ["sedd", "gpt2"]
    assert data["runs"][0]["values"][0]["value"] == 1.812
    assert len(data["runs"][0]["buckets"]["bound"]) == 10
    for link in re.findall(r"\]\((.*?)\)", written.markdown.read_text(encoding="utf-8")):
        assert (written.markdown.parent / link).read_text(encoding="utf-8").startswith("<svg")


def test_rows_keep_their_order_and_real_text_comes_last(pair: list[Path]) -> None:
    table = main_table(collect(pair[::-1]))
    assert [row.label for row in table.rows] == ["gpt2", "sedd", "held-out text"]
    keys = [column.key for column in table.columns]
    real = table.rows[-1]
    assert real.cells[keys.index("unigram_entropy")].text == "4.12"
    assert real.cells[keys.index("bits_per_byte")].text == tables.MISSING


def test_runs_that_cut_text_otherwise_have_their_own_real_row(tmp_path: Path, pair: list[Path]) -> None:
    other = make_run(tmp_path, "bytes", digest="11" * 8)
    data = json.loads((other / "results.json").read_text())
    for value in data["values"]:
        if value["name"] == "unigram_entropy":
            value["real"] = 2.9
    (other / "results.json").write_text(json.dumps(data))
    rows = [row.label for row in main_table(collect([*pair, other])).rows if row.real]
    assert rows == ["held-out text (as for sedd, gpt2)", "held-out text (as for bytes)"]


def test_unevaluated_and_failed_runs_are_shown(tmp_path: Path, pair: list[Path]) -> None:
    fresh = make_run(tmp_path, "new", evaluated=False, state="interrupted", error="Interrupted: by a | signal")
    written = write_report([*pair, fresh], tmp_path / "report")
    text = " ".join(Reader(written.html.read_text(encoding="utf-8")).text)
    assert "not evaluated yet (interrupted 2000/2000)" in text
    assert "Not evaluated yet: new." in text
    assert "Interrupted: by a | signal" in text
    alone = write_report([fresh], tmp_path / "alone")
    assert "not evaluated yet" in alone.html.read_text(encoding="utf-8")
    assert "not evaluated yet" in alone.markdown.read_text(encoding="utf-8")


def test_a_failed_metric_is_one_cell(pair: list[Path], tmp_path: Path) -> None:
    data = json.loads((pair[0] / "results.json").read_text())
    data["values"] = [v for v in data["values"] if v["name"] != "rep_4"]
    data["values"].append(Value("rep_4", None, error="ValueError: <too> short").as_data())
    (pair[0] / "results.json").write_text(json.dumps(data))
    table = main_table(collect(pair))
    at = [column.key for column in table.columns].index("rep_4")
    assert table.rows[0].cells[at].error == "ValueError: <too> short"
    assert table.rows[1].cells[at].text == "0.004"
    assert "sedd, rep-4: ValueError: <too> short" in table.notes
    page = write_report(pair, tmp_path / "report").html.read_text(encoding="utf-8")
    assert "&lt;too&gt; short" in page
    assert "<too>" not in page


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("results.json", "{", "evaluate the run again"),
        ("results.json", '{"schema": 9}', "schema 9"),
        ("results.json", b"\xff\xfe", "results.json"),
        ("resolved.yaml", "a: [", "resolved.yaml"),
        ("resolved.yaml", "- 1", ""),
        ("env.json", "nothing", "env.json"),
        ("env.json", '{"git": 3, "packages": []}', ""),
        ("log.jsonl", '{"step": 1}\n{"step": 2, "values": {"train/bits_per_byte": null}}\n{"st', ""),
        ("log.jsonl", '{"step": 1, "values": 3, "buckets": {"bound": [[null, 1], [1]]}}\n', ""),
        ("log.jsonl", "", ""),
    ],
)
def test_damaged_files_become_remarks(tmp_path: Path, file: str, content: str | bytes, said: str) -> None:
    run = make_run(tmp_path, "sedd")
    (run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    (found,) = collect([run])
    assert said in " ".join(found.remarks)
    assert bool(found.remarks) == bool(said)
    write_report([run], tmp_path / "report")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    run = make_run(tmp_path, "sedd")
    for name in ("results.json", "resolved.yaml", "env.json", "log.jsonl"):
        (run / name).unlink()
    written = write_report([run], tmp_path / "report")
    assert "not evaluated yet" in written.html.read_text(encoding="utf-8")
    with pytest.raises(WorkbenchError, match="no run folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report")


def test_what_models_and_users_wrote_stays_text(tmp_path: Path) -> None:
    evil = HOSTILE + "\n```\n# not a heading\n</pre></section>\x00\x1b[31m\u202e\ud800"
    run = make_run(tmp_path, HOSTILE, samples=[evil], state="failed", error=HOSTILE)
    written = write_report([run, make_run(tmp_path, "gpt2", "autoregressive", "22" * 8)], tmp_path / "report")
    page = written.html.read_text(encoding="utf-8")
    reader = Reader(page)
    assert reader.tags.count("script") == 1, "the page's own"
    assert not reader.open
    assert HOSTILE in "".join(reader.text)
    assert not set("\x1b\x00\u202e") & set(page)
    text = written.markdown.read_text(encoding="utf-8")
    assert "````text" in text
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.S | re.M)
    assert "<script>" not in outside.replace("\\<", "")
    assert "# not a heading" not in outside
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]}) == 1


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "sedd", digest=digest) for digest in ("aa" * 8, "bb" * 8, "bb" * 8)]
    labels = [run.label for run in collect(runs)]
    assert labels[0] == "sedd-aaaaaaaa"
    assert len(set(labels)) == 3


def test_differing_settings(pair: list[Path]) -> None:
    found = differing(collect(pair))
    assert found["backbone.type"] == ["transformer", "gpt2"]
    assert found["process.graph.type"] == ["absorbing", None]
    assert "train.steps" not in found
    assert "name" not in found


def test_curves_and_buckets(pair: list[Path]) -> None:
    sedd, gpt2 = collect(pair)
    curve = sedd.curve("train/bits_per_byte")
    assert len(curve.steps) == len(curve.values) == len(curve.seconds) == 200
    assert curve.steps == sorted(curve.steps)
    assert curve.seconds[0] == pytest.approx(1.05)
    expected = [1.2 + 3.5 * ((i + 0.5) / 10) ** 2 for i in range(10)]
    assert sedd.buckets("bound") == pytest.approx(expected)
    assert gpt2.buckets("bound") == []
    assert sedd.setting("backbone.dim") == 256
    assert sedd.setting("backbone.none.deep") is None


def test_plots_are_of_what_was_logged(pair: list[Path]) -> None:
    runs = collect(pair)
    names = [plot.name for plot in all_plots(alone(runs))]
    assert names == ["training-steps", "training-seconds", "validation", "noise-bound", "noise-calibration"]
    assert [plot.name for plot in all_plots(alone(runs[1:]))] == ["training-steps", "training-seconds", "validation"]
    assert all_plots([]) == []
    first, again = (all_plots(alone(runs)) for _ in range(2))
    assert [plot.svg for plot in first] == [plot.svg for plot in again]
    ids = [name for plot in first for name in set(re.findall(r' id="([^"]+)"', plot.svg))]
    assert len(ids) == len(set(ids))
    assert not any("<style" in plot.svg for plot in first)


@pytest.mark.parametrize("width", [200, 80, 72])
def test_terminal_table_shows_every_figure(pair: list[Path], width: int) -> None:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(pair, console)
    text = console.export_text()
    for shown in ("≤ 1.812 ± 0.015", "2.618", "≥ 30.8 %", "4.12", "95.4 %", "39,000", "3.42 M", "held-out text"):
        assert shown in text


def printed(table: tables.Table, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    terminal.show(table, console)
    return console.export_text()


@pytest.mark.parametrize("width", [100, 80, 60, 30, 10])
@pytest.mark.parametrize("name", ["quickstart-sedd", "a-name-of-one-word-that-is-longer-than-any-column", "名字" * 20])
def test_no_digit_is_cut_beside_calibration_texts(width: int, name: str) -> None:
    columns = (*tables.COLUMNS[:4], *tables.COLUMNS[7:])
    figures = ("≤ 1.643 ± 0.030", "2.545", "≥ 35.4 %", "4.45", "81.1 %", "12,200", "345", "6.19 M")
    real = {
        tables.HELD_OUT: ("4.34", "99.3 %"),
        "shuffled words": ("4.35", "99.0 %"),
        "independent tokens": ("4.46", "56.5 %"),
    }
    rows = [tables.Row(name, tuple(map(tables.Cell, figures)))]
    rows += [
        tables.Row(text, tuple(tables.Cell(given.get(i, tables.MISSING)) for i in range(8)), real=True)
        for text, (nats, known) in real.items()
        for given in [{3: nats, 4: known}]
    ]
    text = printed(tables.Table(columns, tuple(rows)), width)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for figure in (*figures, "4.34", "99.3 %", "4.35", "99.0 %", "4.46", "56.5 %"):
        assert any(f" {figure} " in f" {line} " for line in lines), figure
    assert "…" not in text and {"independent", "tokens", "shuffled"} <= set(text.split())
    assert width < 30 or max(map(cell_len, text.splitlines())) <= max(width, 32), "no longer than it takes"


@pytest.mark.parametrize("count", [1, terminal.MANY + 1])
def test_one_wide_figure_is_whole_in_a_narrow_terminal(count: int) -> None:
    column = tables.Column("x", "a long heading", "of a figure", str)
    rows = tuple(tables.Row(f"run {i}", (tables.Cell(f"≤ {i}.123456789 ± 0.987654321"),)) for i in range(count))
    text = printed(tables.Table((column,), rows), 20)
    assert text.count("123456789 ± 0.987654321 ") == count


def shown_of_many(tmp_path: Path, width: int) -> str:
    runs = [
        make_run(tmp_path, f"arm {i} of the predictor normalised", digest=f"{i:016d}") for i in range(terminal.MANY + 3)
    ]
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(runs, console)
    return console.export_text()


@pytest.mark.parametrize("width", [120, 80, 40])
def test_many_runs_stay_one_table_that_says_what_it_leaves_out(tmp_path: Path, width: int) -> None:
    text = shown_of_many(tmp_path, width)
    assert all(text.count(f"arm {i} ") == 1 for i in range(terminal.MANY + 3)), "each run once"
    assert "1.812" in text and "3.42 M" not in text
    told = " ".join(text.partition("No room for: ")[2].split())
    assert "size (parameters). All take" in told and "held-out bits/byte" not in told.partition("All take")[0]
    room = int(told.partition("COLUMNS=")[2].split()[0])
    whole = shown_of_many(tmp_path, room)
    assert "No room" not in whole and whole.count("3.42 M") == terminal.MANY + 3
    assert "No room" in shown_of_many(tmp_path, room - 30)


def test_a_long_name_goes_on_below_before_a_table_is_turned(tmp_path: Path) -> None:
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    columns = tuple(tables.Column(name, name, "", str) for name in ("one", "two"))
    rows = tuple(tables.Row(f"{i} " + "name " * 12, tuple(map(tables.Cell, ("1,111", "2,222")))) for i in range(3))
    terminal.show(tables.Table(columns, rows), console)
    found = [line.split()[-2:] for line in console.export_text().splitlines() if "1,111" in line]
    assert found == [["1,111", "2,222"]] * 3


def test_terminal_names_are_no_markup(tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table([make_run(tmp_path, "[red]x[/red] [nope\x1b[2J")], console)
    assert "[red]x[/red] [nope\ufffd[2J" in console.export_text()


def test_numbers() -> None:
    assert [significant(x) for x in (0, 12345.6, 987.6, 12.345, 0.012345, -4321)] == [
        "0", "12,300", "988", "12.3", "0.0123", "-4,320",
    ]  # fmt: skip
    assert [tables.millions(x) for x in (12, 3400, 3.42e6, 1.3e9)] == ["12", "3.4 k", "3.42 M", "1.3 B"]


def test_a_figure_above_its_unigram_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "sedd")
    data = json.loads((run / "results.json").read_text())
    data["values"][0]["value"] = 3.0
    (run / "results.json").write_text(json.dumps(data))
    (found,) = collect([run])
    assert "14.6 % above its unigram" in words.summary([found])


def test_markdown_means_itself() -> None:
    assert markdown.line("a|b *c* [d](e) <f>\ng") == r"a\|b \*c\* \[d\](e) \<f\> g"
    assert markdown.fenced("x\n```\ny").startswith("````text\n")


def test_results_written_here_are_read(tmp_path: Path) -> None:
    found = results("diffusion", "sedd")
    assert Results.from_data(json.loads(json.dumps(found.as_data()))).value("rep_4").real == pytest.approx(0.004)


def test_reports_need_no_torch(pair: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys; from workbench.report.write import write_report; from workbench.report.tables import print_table\n"
        "write_report(sys.argv[2:], sys.argv[1]); print_table(sys.argv[2:]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), *map(str, pair)], check=True)
