"""What every metric and every strategy must satisfy: run on any registered part, a plug-in's included.

``CHECKS`` maps a kind to a function from a part's class to a list of problems; none: the contract is met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from workbench.core.checks import run_checks
from workbench.core.errors import WorkbenchError
from workbench.metrics.asking import Answered
from workbench.metrics.base import Continued, Cost, Drawn, Evidence, HeldOut, Metric, Texts, needed, owed
from workbench.metrics.judge import Judge, Passage, Reading
from workbench.metrics.sets import EvalSet, OnSet, Protocol
from workbench.metrics.solving import Attempts, Strategy
from workbench.metrics.timing import Timed
from workbench.metrics.value import INDEPENDENT, SHUFFLED, Value

ENTRIES = frozenset(
    {
        "bound", "samples", "real", "calibration", "unigram", "known_words", "cost", "judge", "continuations",
        "attempts", "timings", "answers", "sets",
    }
)
"""The entries of `Evidence`."""


class ByLetter(Judge):
    """A judge of no network, for examples and tests: a letter costs its code's number of bits, in nats."""

    def identity(self) -> str:
        """Its name."""
        return "by letter"

    def reread(self, passages: Sequence[Passage]) -> list[Reading]:
        """One token a letter; the state holds letter counts, the given part included."""
        return [self._reading(passage) for passage in passages]

    def _reading(self, passage: Passage) -> Reading:
        codes = np.frombuffer(passage.text.encode(), dtype=np.uint8)
        whole = np.frombuffer((passage.given + passage.text).encode(), dtype=np.uint8)
        state = np.bincount(whole % 16, minlength=16).astype(np.float32)
        return Reading(np.log(2.0 + codes % 8).astype(np.float32), len(codes), state)


def example_evidence(only: frozenset[str] = ENTRIES) -> Evidence:
    """Small, made-up evidence with the entries of ``only``."""
    rng = np.random.default_rng(0)
    held = rng.integers(0, 50, (20, 16))
    texts = [" the people of the states "] * 8
    entries = {
        "bound": HeldOut(rng.gamma(20, 2, (20, 3)), np.full(20, 40), held, "upper"),
        "samples": Drawn(
            rng.integers(0, 50, (8, 16)),
            texts,
            seconds=2.0,
            calls=32,
            batch=8,
            sampler="reverse",
            device="cpu",
        ),
        "real": Texts(rng.integers(0, 50, (8, 16)), texts),
        "calibration": {
            SHUFFLED: Texts(rng.integers(0, 50, (8, 16)), [" states the of people the "] * 8),
            INDEPENDENT: Texts(rng.integers(0, 50, (8, 16)), [" the the of of states "] * 8),
        },
        "unigram": np.bincount(held.ravel(), minlength=50),
        "known_words": frozenset({"the", "people"}),
        "attempts": Attempts(
            rng.random((12, 16, 2)).cumsum(-1) > 0.8,
            np.ones((12, 16, 2)).cumsum(-1) * 4,
            rng.integers(0, 4, (12, 16)),
            np.array([2.0, 3.0]),
            key="example",
        ),
        "timings": [Timed(1, 16, [0.2, 0.21, 0.19], 16.0), Timed(8, 16, [0.5, 0.7, 0.6], 16.0)],
        "answers": {task: Answered([1.0, 0.0, 1.0, 1.0], list("abcd")) for task in ("piqa", "arc")},
        "sets": {"lambada": _example_set(held, rng), "ptb": OnSet("sedd", error="cut off")},
        "cost": Cost([100.0, 110.0, 120.0], 60.0, 6600, 1000, 800, "cpu"),
        "judge": ByLetter(),
        "continuations": {name: _example_prompts(given, rng) for name, given in (("k1", 1), ("k4", 4))},
    }
    kinds = {
        "continuations": ("k1", "k4"), "timings": ("b1", "b8"), "answers": ("piqa", "arc"),
        "sets": ("lambada_sedd", "ptb_sedd"),
    }  # fmt: skip
    given = {name: entry for name, entry in entries.items() if name in only}
    return Evidence(**given, kinds=kinds)  # type: ignore[arg-type]


def _example_set(tokens_BL: npt.NDArray[np.int64], rng: np.random.Generator) -> OnSet:
    """A bound on 20 blocks of 10 documents."""
    blocks, length = tokens_BL.shape
    held = HeldOut(
        rng.gamma(20, 2, (blocks, 3)), np.full(blocks, 40), tokens_BL, "upper", document_B=np.arange(blocks) // 2
    )
    return OnSet("sedd", "packed", held, np.full(blocks, length), "a set", "", blocks, blocks * length, 0, 10)


def _example_prompts(before: int, rng: np.random.Generator) -> Continued:
    """Four prompts of ``before`` letters, two continuations each, of random letters."""

    def letters(ids_NT: npt.NDArray[np.int64]) -> list[str]:
        return ["".join(chr(97 + i) for i in row) for row in ids_NT.tolist()]

    real, drawn = rng.integers(0, 26, (4, 12)), rng.integers(0, 26, (8, 12))
    drawn[:, :before] = np.repeat(real[:, :before], 2, axis=0)
    return Continued(
        before=before,
        after=0,
        each=2,
        drawn=Drawn(drawn, letters(drawn), seconds=1.0, calls=12),
        real=Texts(real, letters(real)),
        given=letters(real[:, :before]),
        drawn_rest=letters(drawn[:, before:]),
        real_rest=letters(real[:, before:]),
        key=f"example {before}",
    )


def check_metric(part: type[Metric]) -> list[str]:
    """Problems of a metric, in words."""
    try:
        metric = part(**part.example())
    except Exception as error:
        return [f"cannot be built from its example settings: {type(error).__name__}: {error}"]
    problems = [f"needs {name!r}, which evidence does not hold" for name in sorted(metric.needs - ENTRIES)]
    evidence = example_evidence(needed([metric]))
    due = owed(metric, evidence.kinds)
    try:
        values = metric(evidence)
        again = metric(example_evidence(needed([metric])))
    except Exception as error:
        return [*problems, f"raises on evidence with what it needs: {type(error).__name__}: {error}"]
    if [value.name for value in values] != due:
        problems.append(f"gives {[value.name for value in values]}, declares {due}")
    if values != again:
        problems.append("values differ between two calls on the same evidence")
    return problems + [f"{value.name}: {problem}" for value in values for problem in _value(value)]


def _value(value: Value) -> Iterator[str]:
    if (value.value is None) == (not value.error):
        yield "either a value or an error is due"
    if (value.low is None) != (value.high is None):
        yield "an interval has two ends"
    if value.value is not None and value.low is not None and value.high is not None:
        if not value.low <= value.value <= value.high:
            yield f"{value.value:g} lies outside its interval {value.low:g} … {value.high:g}"
        if not value.method:
            yield "an interval with no method"
    if value.units is not None and value.value is not None:
        numbers, weights = value.units.values, value.units.weights or (1.0,) * len(value.units.values)
        mean = sum(number * weight for number, weight in zip(numbers, weights, strict=True)) / sum(weights)
        if abs(mean - value.value) > 1e-4 * max(1.0, abs(mean)):
            yield f"its units give {mean:g}, it is {value.value:g}"
    if Value.from_data(json.loads(json.dumps(value.as_data(), allow_nan=False))) != value:
        yield "does not survive JSON"


def check_eval_set(part: type[EvalSet]) -> list[str]:
    """Problems of an evaluation set whose example can be read, in words; absent files are to be said in words."""
    return run_checks(EvalSet, part, (_reads,))


def _reads(one: EvalSet) -> Iterator[str]:
    try:
        rows, again = one.rows("sedd"), one.rows("sedd")
    except WorkbenchError:  # its example's files are absent, and it says so
        return
    if not any(rows.texts):
        yield "holds no text"
    if len(rows.group_N) != len(rows.texts):
        yield f"{len(rows.texts)} rows, and groups of {len(rows.group_N)}"
    if not rows.source:
        yield "does not say what was read"
    if list(again.texts) != list(rows.texts):
        yield "gives other rows when read again"


def check_protocol(part: type[Protocol]) -> list[str]:
    """Problems of a protocol, in words."""
    return run_checks(Protocol, part, (_cuts,))


def _cuts(protocol: Protocol) -> Iterator[str]:
    """Blocks of one length, of the stream's tokens and ends alone, each of which counts once at most."""
    lots = np.random.default_rng(0)
    rows = [lots.integers(0, 50, size) for size in lots.integers(0, 40, 60)]
    stream = np.concatenate([np.append(row, 50) for row in rows])
    cut = protocol.cut(rows, 50, 16)
    blocks, width = cut.tokens_NT.shape
    if cut.stream != len(stream):
        yield f"a stream of {cut.stream} tokens, of rows and ends that are {len(stream)}"
    if not protocol.about:
        yield "says nothing of itself (`about`)"
    if not (len(cut.told_N) == len(cut.start_N) == blocks) or np.any((cut.told_N < 0) | (cut.told_N >= width)):
        yield "tells as many tokens as a block has, or not of every block"
        return
    seen = np.zeros(len(stream), dtype=np.int64)
    starts = [*cut.start_N.tolist(), len(stream)]
    for row, told, start, end in zip(cut.tokens_NT, cut.told_N.tolist(), starts[:-1], starts[1:], strict=True):
        counted = row[told:]
        here = min(len(counted), end - start)
        same = int(np.argmin(np.append(counted[:here] == stream[start : start + here], False)))
        seen[start : start + same] += 1
        if np.any(counted[same:] != 50):
            yield "a block does not count what stands in the stream at its start"
            return
    if seen.max() > 1:
        yield "counts a token twice"
    if int((seen == 0).sum()) > cut.dropped:
        yield f"{int((seen == 0).sum())} tokens are in no block, and {cut.dropped} are said to be dropped"


def check_judge(part: type[Judge]) -> list[str]:
    """Problems of a judge with its example settings, in words."""
    try:
        judge = part(**part.example())
    except Exception as error:
        return [f"cannot be built from its example settings: {type(error).__name__}: {error}"]
    return judge_problems(judge)


def judge_problems(judge: Judge) -> list[str]:
    """Problems of a judge that is at hand, in words."""
    texts = ["The people of the state.", "", "é", "word salad the of", "The people of the state. " * 3]
    alone = [Passage(text) for text in texts]
    given = [Passage(text, given="We ") for text in texts]
    together = judge.reread([*alone, *given])
    problems = [] if judge.identity() == judge.identity() else ["its identity changes"]
    for passage, found in zip([*alone, *given], together, strict=True):
        size = len(passage.text.encode())
        nats = np.asarray(found.nats, dtype=np.float64)
        if not np.all(np.isfinite(nats)) or np.any(nats < 0):
            problems.append(f"{passage.text!r}: nats are not all finite and ≥ 0")
        if not 0 <= found.bytes <= size or (size == 0 and len(nats)):
            problems.append(f"{passage.text!r}: {len(nats)} tokens of {found.bytes} bytes, of a text of {size}")
        if found.state.ndim != 1 or not np.all(np.isfinite(found.state)):
            problems.append(f"{passage.text!r}: the state is no finite vector")
        again = judge.reread([passage])[0]
        if not np.allclose(again.nats, found.nats, atol=1e-3) or again.bytes != found.bytes:
            problems.append(f"{passage.text!r}: read alone it costs other nats than among others")
    for text, found in zip(texts[:-1], together[len(texts) :], strict=False):  # the last may be longer than is read
        if found.bytes != len(text.encode()):
            problems.append(f"{text!r}: behind a given part all {len(text.encode())} bytes count, not {found.bytes}")
    return problems


def check_strategy(part: type[Strategy]) -> list[str]:
    """Problems of a strategy, in words."""
    return run_checks(Strategy, part, (_frees,))


def _frees(strategy: Strategy) -> Iterator[str]:
    """What is broken, nothing that is given, the same each time; all of the rest where a prefix sampler may have it."""
    lots = np.random.default_rng(0)
    given_NL = lots.random((50, 12)) < 0.5
    broken_NL = ~given_NL & (lots.random((50, 12)) < 0.3)
    u_NL = lots.random((50, 12))
    free_NL = strategy.free(given_NL, broken_NL, u_NL)
    if free_NL.shape != given_NL.shape or free_NL.dtype != bool:
        yield f"{free_NL.dtype} {free_NL.shape}, not a bool for each position"
        return
    if (free_NL & given_NL).any():
        yield "frees a given position"
    if (broken_NL & ~free_NL).any():
        yield "keeps a broken position"
    if not np.array_equal(free_NL, strategy.free(given_NL, broken_NL, u_NL)):
        yield "frees others when asked again"
    if not strategy.anywhere and not np.array_equal(free_NL, ~given_NL):
        yield "keeps positions between others, and does not declare `anywhere`"


CHECKS: dict[str, Callable[..., list[str]]] = {
    "metric": check_metric, "judge": check_judge, "strategy": check_strategy,
    "eval_set": check_eval_set, "protocol": check_protocol,
}  # fmt: skip
"""Kind → contract check."""
