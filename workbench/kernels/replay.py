"""A network's pass at a shape that recurs, recorded once and launched as a whole (a CUDA graph).

A sampler asks a network for features hundreds of times at the same few shapes, and for a few texts the host takes
longer to launch a pass's kernels than the device to run them. What is recorded are kernels with the addresses that they
read and write, no values: inputs are copied to where the recording reads them, its output is copied away before the
next replay writes over it. What else it reads must stay where it is, and what it is:

- weights are read in place, so that updates of them are seen;
- *casts* of weights are copies that autocast made before and keeps until it is left, whatever becomes of the weights
  (`workbench.kernels.precision.cast_once`). A recording holds those that it reads, and is no older than the autocast
  that made them: `replaying` is entered within it and ends before it, and where autocast is not as it was then, nothing
  is replayed.

A recording is compared with the pass as it is and timed beside it; other figures, or no gain, and it is not used.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.kernels.dispatch import Candidate, Dispatcher
from workbench.kernels.recording import Call, CudaGraphs, Reads, Recorder

ASKED = 3
"""How often a shape is asked for until it is recorded; twice that after each recording that had to make room."""
KEPT = 16
"""Recordings of a network at a time, the one used least recently makes room; four times as many shapes are counted."""
TRIED = 3
"""Runs of each way when a recording is timed; the fastest counts."""


def no_recorder(device: str, recorder: str = "", **where: Any) -> str | None:
    """Why nothing is recorded on a device: it is no CUDA device, and no other ``recorder`` is at hand."""
    return None if recorder or device == "cuda" else f"kernels are recorded on CUDA only, not on {device}"


def _unrecorded(device: torch.device) -> None:
    """No recorder: each pass is launched anew."""


REPLAY = Dispatcher(
    "passes at one shape, while texts are drawn",
    [
        Candidate(
            "replay",
            CudaGraphs,
            "where train.replay is on, launched as a whole at shapes where that was measured to be faster",
            no_recorder,
            lambda against="", **where: against or None,
        ),
        Candidate("eager", _unrecorded, "launched kernel by kernel, on every device"),
    ],
)
"""What a `Replayer` decides is told here; ``recorder``, ``against``: what records, and what speaks against it."""


def recorder_on(device: torch.device) -> Recorder | None:
    """What records on a device; None where nothing does, and that is told."""
    if no_recorder(device.type) is None:
        return CudaGraphs(device)
    REPLAY.choose(device=device.type)
    return None


@contextmanager
def replaying(net: nn.Module, recorder: Recorder | None) -> Iterator[Replayer | None]:
    """Passes of ``net`` made inside are replayed where that can be done and pays; all recordings end with it.

    Inside another one of the same network it is that one's. ``recorder`` None: nothing changes.
    """
    around = vars(net).get("forward")
    if recorder is None or isinstance(around, Replayer):
        yield around if isinstance(around, Replayer) else None
        return
    replayer = Replayer(net, recorder)
    net.forward = replayer
    try:
        yield replayer
    finally:
        if around is None:
            del net.forward
        else:
            net.forward = around
        replayer.forget()


@dataclass(frozen=True)
class Recording:
    """A recorded pass: where it reads its inputs, what does it again, and the memory that it reads besides."""

    inputs: Sequence[Tensor]
    replay: Call
    reads: Mapping[int, torch.UntypedStorage]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for other inputs, in memory of its own."""
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given, non_blocking=True)
        return self.replay().clone()


class Replayer:
    """A network's ``forward`` that records what recurs. Everything else it runs as it is, and says why."""

    def __init__(self, net: nn.Module, recorder: Recorder, asked: int = ASKED, kept: int = KEPT) -> None:
        """``asked``: how often a shape is asked for until it is recorded; ``kept``: recordings at a time."""
        self.net, self.recorder = net, recorder
        self.eager = net.forward
        self.device = next(net.parameters()).device
        self.due, self.kept = asked, kept
        self.recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._asked: OrderedDict[Hashable, int] = OrderedDict()
        self._slower: dict[Hashable, str] = {}
        self._never = ""
        self._mode = _mode(self.device)

    def __call__(self, *args: Any, **named: Any) -> Tensor:
        """The network's features, in memory that nobody writes over."""
        against = self._never or self._against((*args, *named.values()))
        if against:
            return self._as_it_is(against, args, named)
        inputs = [value for value in (*args, *named.values()) if value is not None]
        key = (len(args), *map(_shape, args), *((name, _shape(value)) for name, value in named.items()))
        if key not in self.recordings:
            against = self._slower.get(key) or self._too_rare(key) or self._record(key, args, named)
            if against:
                return self._as_it_is(against, args, named)
        self._tell()
        self.recordings.move_to_end(key)
        return self.recordings[key](inputs)

    def forget(self) -> None:
        """Drop all recordings, and what they hold."""
        self.recordings.clear()

    def _against(self, values: Sequence[Any]) -> str:
        """What a call is that no recording can do."""
        if torch.is_grad_enabled():
            return "a gradient may be asked for"
        if self.net.training:
            return "the network is in training mode"
        if _mode(self.device) != self._mode:
            return "autocast is not as it was where replaying began"
        for value in values:
            if isinstance(value, Tensor):
                if value.device != self.device:
                    return f"an input lies on {value.device}, the network on {self.device}"
            elif value is not None:
                return "it reads a cache, which grows from call to call"
        return ""

    def _too_rare(self, key: Hashable) -> str:
        """Count a shape that was asked for; why it is not to be recorded yet."""
        self._asked[key] = count = self._asked.pop(key, 0) + 1
        while len(self._asked) > 4 * self.kept:
            self._asked.popitem(last=False)
        return "" if count >= self.due else "a shape is recorded once it recurs"

    def _record(self, key: Hashable, args: Sequence[Any], named: Mapping[str, Any]) -> str:
        """Record a shape, and keep it where it gives the same figures sooner; else what speaks against it."""
        held = [None if value is None else value.clone() for value in args]
        held_named = {name: None if value is None else value.clone() for name, value in named.items()}

        def call() -> Tensor:
            return self.eager(*held, **held_named)

        try:
            due = call()  # whatever is kept by caches is made
            with Reads() as reads:
                call()
            inputs = [value for value in (*held, *held_named.values()) if value is not None]
            recording = Recording(inputs, self.recorder.record(call), reads.kept)
            same = torch.equal(recording.replay(), due)
            eager, replayed = (seconds(way, self.recorder.wait) for way in (call, recording.replay))
        except Exception as error:  # whatever a driver or a block may say: texts are drawn without
            self._never = f"recording fails here ({type(error).__name__}: {error!s:.200})"
            return self._never
        if not same:
            self._never = "its figures are not those of the pass as it is"
            return self._never
        if not replayed < eager:
            self._slower[key] = f"measured: {1e3 * replayed:.3g} ms a pass, kernel by kernel {1e3 * eager:.3g} ms"
            return self._slower[key]
        if len(self.recordings) >= self.kept:
            self.recordings.popitem(last=False)
            self.due *= 2  # more shapes than there is room for: recording must pay for itself
        self.recordings[key] = recording
        del self._asked[key]  # dropped, it is counted anew
        return ""

    def _as_it_is(self, against: str, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
        self._tell(against)
        return self.eager(*args, **named)

    def _tell(self, against: str = "") -> None:
        recorder = type(self.recorder).__name__
        REPLAY.choose(device=self.device.type, recorder=recorder, against=against)


def _mode(device: torch.device) -> Hashable:
    """What besides shapes decides which kernels run, and how long casts of weights are kept."""
    on = torch.is_autocast_enabled(device.type)
    return on and torch.get_autocast_dtype(device.type), torch.is_inference_mode_enabled()


def _shape(value: Tensor | None) -> Hashable:
    return None if value is None else (value.shape, value.dtype)


def seconds(way: Call, wait: Callable[[], None]) -> float:
    """The least of a few runs, the device's work included."""
    found = []
    for _ in range(TRIED):
        wait()
        began = time.perf_counter()
        way()
        wait()
        found.append(time.perf_counter() - began)
    return min(found)
