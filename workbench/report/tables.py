"""The main table: runs in order and the held-out text, one format for page, Markdown and terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.metrics.results import Results
from workbench.metrics.value import Value
from workbench.report.collect import Run, collect

MISSING = "–"
BOUNDS = "≤: an upper bound of the true figure (diffusion); without it the figure is exact (left to right)."
CALIBRATED = (
    "Shuffled words, independent tokens: made of held-out text. A figure that takes them for text does not see order."
)
HELD_OUT = "held-out text"
NOT_YET = "not evaluated yet"


@dataclass(frozen=True)
class Cell:
    """A figure as shown; ``detail``: its interval and method; ``error``: why there is none."""

    text: str = MISSING
    detail: str = ""
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A run, or (``real``) what no model wrote: held-out text, calibration texts."""

    label: str
    cells: tuple[Cell, ...]
    real: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Column:
    """A column: the value it shows, its heading (two lines), how a number is written."""

    key: str
    head: str
    unit: str
    write: Callable[[float], str]
    with_error: bool = False

    @property
    def line(self) -> str:
        """The heading in one line."""
        return f"{self.head} {self.unit}".strip()

    def gap(self, number: float) -> str:
        """How a difference of two such figures is written: of percentages, in points."""
        return f"{100 * number:.1f} points" if self.write is percent else self.write(number)


@dataclass(frozen=True)
class Table:
    """Columns that some run has something for, and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def significant(number: float, digits: int = 3) -> str:
    """``number`` to a few digits, thousands apart: 12,300; 0.0123."""
    if number == 0:
        return "0"
    rounded = float(f"{number:.{digits}g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:.{digits}g}"


def millions(number: float) -> str:
    """A count of parameters: 3.42 M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:g}"


def percent(share: float) -> str:
    """0.874 → 87.4 %."""
    return f"{100 * share:.1f} %"


def fixed(digits: int) -> Callable[[float], str]:
    """A number with that many digits after the point."""
    return lambda number: f"{number:.{digits}f}"


COLUMNS = (
    Column("bits_per_byte", "held-out", "bits/byte", fixed(3), with_error=True),
    Column("unigram_bits_per_byte", "token unigram", "bits/byte", fixed(3)),
    Column("gain", "below", "unigram", percent),
    Column("unigram_entropy", "entropy", "(nats)", fixed(2)),
    Column("rep_2", "rep-2", "", fixed(3)),
    Column("rep_4", "rep-4", "", fixed(3)),
    Column("distinct_2", "distinct-2", "", fixed(3)),
    Column("known_words", "known", "words", percent),
    Column("train_tokens_per_second", "training", "tokens/s", significant),
    Column("sample_tokens_per_second", "sampling", "tokens/s", significant),
    Column("parameters", "size", "(parameters)", millions),
)
"""What the table shows first, where a run has it."""
ASIDE = {
    "perplexity", "bigram_entropy", "rep_3", "train_seconds", "train_tokens", "network_calls",
    "sample_seconds", "parameters_non_embedding",
}  # fmt: skip
"""Values that the table leaves to results.json; all others, a plug-in's metrics among them, follow ``COLUMNS``."""


def gain(run: Run) -> Value | None:
    """How far the held-out bits per byte lie below the token unigram's, as a share of it."""
    found = run.results and run.results.value("bits_per_byte")
    floor = run.results and run.results.value("unigram_bits_per_byte")
    if not found or not floor or found.value is None or not floor.value:
        return None
    return Value("gain", 1 - found.value / floor.value, relation="≥" if found.relation == "≤" else "=")


def main_table(runs: Sequence[Run]) -> Table:
    """Runs in order, then held-out text once for each way the runs cut it."""
    known = (*COLUMNS, *_further(runs))
    values = [{column.key: _value(run, column.key) for column in known} for run in runs]
    columns = tuple(column for column in known if any(row[column.key] is not None for row in values))
    rows = [
        Row(
            run.label,
            tuple(cell_of(row[column.key], column) for column in columns),
            remark="" if run.results else f"{NOT_YET} ({run.state})",
        )
        for run, row in zip(runs, values, strict=True)
    ]
    figures = [(run.label, [row[column.key] for column in columns]) for run, row in zip(runs, values, strict=True)]
    return Table(columns, (*rows, *reference_rows(figures, columns)), tuple(_notes(runs, values, columns)))


def _further(runs: Sequence[Run]) -> list[Column]:
    """Columns for the values that ``COLUMNS`` does not know, in the order in which they come."""
    known = ASIDE | {column.key for column in COLUMNS}
    found = {value.name: value for run in runs if run.results for value in run.results.values}
    return [further_column(name, value.unit) for name, value in found.items() if name not in known]


def further_column(name: str, unit: str) -> Column:
    """A column for a value that ``COLUMNS`` does not know."""
    return Column(name, name.replace("_", " "), f"({unit})" if unit else "", significant)


def _value(run: Run, key: str) -> Value | None:
    if key == "gain":
        return gain(run)
    return run.results.value(key) if run.results else None


def cell_of(value: Value | None, column: Column) -> Cell:
    """A figure as its column shows it."""
    if value is None:
        return Cell()
    if value.value is None:
        return Cell(error=value.error or "no value")
    sign = "" if value.relation == "=" else f"{value.relation} "
    text = sign + column.write(value.value)
    if column.with_error and value.se is not None:
        text += f" ± {column.write(value.se)}"
    return Cell(text, _detail(value, column))


def _detail(value: Value, column: Column) -> str:
    parts = []
    if value.low is not None and value.high is not None:
        parts.append(f"95 % interval {column.write(value.low)} to {column.write(value.high)}")
    parts += [text for text in (value.method, value.note) if text]
    return "; ".join(parts)


def reference_rows(
    figures: Sequence[tuple[str, Sequence[Value | None]]], columns: Sequence[Column], named: int | None = None
) -> list[Row]:
    """What no model wrote, below the runs (or arms) and their ``figures``, one for each column: held-out text, then
    calibration texts by their names.

    One row for each distinct set of figures (runs with one tokenizer and length share theirs), at most ``named`` of
    the labels that it is shared by said.
    """
    rows = []
    known = [name for _, values in figures for value in values if value is not None for name in value.calibration]
    for name in (HELD_OUT, *dict.fromkeys(known)):
        groups: dict[tuple[str, ...], list[tuple[str, tuple[Cell, ...]]]] = {}
        for label, values in figures:
            cells = tuple(reference_cell(value, column, name) for value, column in zip(values, columns, strict=True))
            if any(cell.text != MISSING for cell in cells):
                groups.setdefault(tuple(cell.text for cell in cells), []).append((label, cells))
        for group in groups.values():
            labels = [label for label, _ in group]
            of = ", ".join(labels[:named]) + "…" * (named is not None and len(labels) > named)
            rows.append(Row(name + (f" (as for {of})" if len(groups) > 1 else ""), group[0][1], real=True))
    return rows


def judges_told(
    figures: Iterable[tuple[str, Sequence[Value | None]]], columns: Sequence[Column]
) -> Iterator[str]:
    """For each column whose figures are not all by one judge, or timed on one machine: by whom or where each is."""
    shown = list(figures)
    for at, column in enumerate(columns):
        by: dict[str, list[str]] = {}
        for label, values in shown:
            value = values[at]
            if value is not None and value.value is not None:
                by.setdefault(value.by or "unknown", []).append(label)
        if len(by) > 1:
            timed = any(value is not None and value.timed for value in (values[at] for _, values in shown))
            others, word = ("on other machines", "on") if timed else ("by other judges", "by")
            told = "; ".join(f"{', '.join(labels)} {word} {judge}" for judge, labels in by.items())
            yield f"{column.line}: figures {others} are not to be compared: {told}."


def reference_cell(value: Value | None, column: Column, name: str) -> Cell:
    """The same figure of what no model wrote: held-out text, or a calibration text."""
    if name != HELD_OUT:
        number = None if value is None else value.calibration.get(name)
        return Cell() if number is None else Cell(column.write(number))
    if value is None or value.real is None:
        return Cell()
    detail = ""
    if value.real_low is not None and value.real_high is not None:
        detail = f"95 % interval {column.write(value.real_low)} to {column.write(value.real_high)}"
    return Cell(column.write(value.real), detail)


def _notes(runs: Sequence[Run], values: Sequence[dict[str, Value | None]], columns: Sequence[Column]) -> Iterable[str]:
    bits = [row["bits_per_byte"] for row in values]
    if any(value and value.relation == "≤" for value in bits):
        yield BOUNDS
    if any(value and value.se is not None for value in bits):
        yield "±: one standard error over held-out text and noise draws."
    if any(column.key == "unigram_entropy" for column in columns):
        yield "Entropy, repetition, distinct-2: of tokens; the held-out text's figure is the one to match."
    if any(value and value.calibration for row in values for value in row.values()):
        yield CALIBRATED
    figures = [(run.label, [row[column.key] for column in columns]) for run, row in zip(runs, values, strict=True)]
    yield from judges_told(figures, columns)
    for run, row in zip(runs, values, strict=True):
        for column in columns:
            value = row[column.key]
            if value is not None and value.value is None:
                yield f"{run.label}, {column.head}: {value.error or 'no value'}"


def table_with(folders: Sequence[Path | str], results: Sequence[Results], changes: str = "") -> Table:
    """The main table of runs by other figures than those that their folders keep.

    ``changes``: the settings that they were measured by in place of the runs' own; each run then has both rows.
    """
    rows = []
    for run, found in zip(collect(folders), results, strict=True):
        rows += [run] if changes and run.results else []
        rows.append(replace(run, results=found, label=f"{run.label}, {changes}" if changes else run.label))
    return main_table(rows)


def print_table(runs: Iterable[Path | str], console: object | None = None) -> None:
    """The main table on a terminal: runs as rows where they fit, as columns where the terminal is narrow."""
    from rich.console import Console

    from workbench.report.terminal import show

    show(main_table(collect(runs)), console if isinstance(console, Console) else Console())
