"""Passes recorded once and replayed: the same figures to the last bit, what is refused and why, nothing stale."""

from __future__ import annotations

import inspect
import itertools
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from backbones.transformer import Transformer
from tests.kernels.tape import Tape
from workbench.kernels import replay
from workbench.kernels.precision import cast_once
from workbench.kernels.recording import CudaGraphs, Reads
from workbench.kernels.replay import ASKED, REPLAY, Replayer, recorder_on, replaying

STATES, LENGTH, DIM = 30, 12, 32


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    """Every recording is the faster one, whatever the clock says."""
    told = itertools.cycle([2.0, 1.0])
    monkeypatch.setattr(replay, "seconds", lambda way, wait: next(told))
    REPLAY.forget()
    yield
    REPLAY.forget()


def network(**settings):
    """A small network whose features depend on everything that it hears."""
    torch.manual_seed(0)
    net = Transformer(STATES, STATES, LENGTH, dim=DIM, depth=2, heads=2, cond_dim=16, dropout=0.0, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def texts(batch, seed, length=LENGTH):
    return torch.randint(STATES, (batch, length), generator=torch.Generator().manual_seed(seed))


def why(picked):
    return [row["why"] for row in REPLAY.picked() if row["picked"] == picked]


def ask(net, batch=2, times=ASKED + 1, **more):
    """A shape asked for again and again, at other texts and σ each time; the last features."""
    found = None
    for turn in range(times):
        found = net(texts(batch, turn), torch.tensor([0.1 + turn]), **more)
    return found


@pytest.mark.parametrize("low", [False, True])
@torch.no_grad()
def test_features_are_the_same_to_the_last_bit(low):
    net, tape = network(hints=True), Tape()
    hint = torch.randn(3, LENGTH, DIM)
    cases = [
        (texts(batch, seed, length), sigma, more)
        for seed in range(ASKED + 2)
        for batch, length in ((3, LENGTH), (1, LENGTH), (3, 5))
        for sigma in (None, torch.tensor([0.3 + seed]), torch.linspace(0.1, 2.0, batch) + seed)
        for more in ({}, *([{"hint_BLD": hint * seed}] if (batch, length) == (3, LENGTH) else []))
    ]
    with cast_once(net), torch.autocast("cpu", torch.bfloat16, enabled=low):
        due = [net(x_BL, sigma, **more) for x_BL, sigma, more in cases]
        with replaying(net, tape) as replayer:
            found = [net(x_BL, sigma, **more) for x_BL, sigma, more in cases]
            shapes = len(replayer.recordings)
    # of one text [1] and [B] are one shape of σ
    assert shapes == tape.records == 11 and tape.replays >= 3 * shapes
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))  # and none was written over since
    assert why("replay") and net.forward.__func__ is Transformer.forward


@torch.no_grad()
def test_a_shape_is_recorded_once_it_recurs_and_shrinking_batches_are_not():
    net, tape = network(), Tape()
    with replaying(net, tape) as replayer:
        for batch in range(12, 0, -1):
            ask(net, batch, 1)
        rare = "a shape is recorded once it recurs"
        assert not tape.records and why("eager") == [f"launched kernel by kernel, on every device (not replay: {rare})"]
        ask(net, 5, ASKED - 1)
        assert tape.records == 1 and len(replayer.recordings) == 1


@torch.no_grad()
def test_walks_over_many_shapes_record_nothing_however_often_they_are_repeated():
    net, tape = network(), Tape()
    with replaying(net, tape) as replayer:
        replayer.kept = 2
        for _ in range(4):
            for batch in range(1, 11):  # more than 4 × kept
                ask(net, batch, 1)
    assert not tape.records


@torch.no_grad()
def test_what_is_asked_for_again_is_not_forgotten_for_what_came_up_since():
    net, tape = network(), Tape()
    with replaying(net, tape) as replayer:
        replayer.kept = 1
        for batch in (1, 2, 3, 4, 1, 5, 1):
            ask(net, batch, 1)
    assert tape.records == 1


@torch.no_grad()
def test_the_recording_used_least_recently_makes_room_and_the_next_must_be_asked_for_twice_as_often():
    net, tape = network(), Tape()
    with replaying(net, tape) as replayer:
        replayer.kept = 2
        for batch in (1, 2, 1, 3):
            ask(net, batch)
        held = [key[1][0][0] for key in replayer.recordings]
        assert held == [1, 3] and replayer.due == 2 * ASKED and tape.records == 3
        ask(net, 2, 2 * ASKED - 1)
        assert tape.records == 3
        assert torch.equal(ask(net, 2), network()(texts(2, ASKED), torch.tensor([0.1 + ASKED])))
        assert tape.records == 4 and len(replayer.recordings) == 2


@torch.no_grad()
def test_weights_are_read_where_they_stand():
    """Without casts an update in place is seen by a recording made before."""
    net, tape = network(), Tape()
    with replaying(net, tape):
        before = ask(net)
        net.blocks[0].mlp.inner.weight.mul_(1.5)
        after = ask(net)
        assert tape.records == 1 and not torch.equal(before, after)
    assert torch.equal(after, ask(net))


def drawn_between_updates(net, tape, inside):
    """Features of two looks with an update between; one `replaying` each, or (``inside`` False) one around both."""
    found = []
    with torch.no_grad(), replaying(net, None if inside else tape):
        for _ in range(2):
            with cast_once(net), torch.autocast("cpu", torch.bfloat16), replaying(net, tape if inside else None):
                found.append(ask(net))
            with torch.no_grad():
                net.blocks[0].mlp.inner.weight.mul_(1.5)
    return found


@pytest.mark.parametrize("inside", [True, False])
def test_no_cast_of_weights_is_stale(inside):
    due, tape = drawn_between_updates(network(), None, True), Tape()
    found = drawn_between_updates(network(), tape, inside)
    assert not torch.equal(*due)
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    # around them, casts would be those of the first look (the next test): nothing is recorded, and that is told
    assert tape.records == (2 if inside else 0)
    assert any("autocast is not as it was" in reason for reason in why("eager")) != inside


@torch.no_grad()
def test_casts_are_held_by_what_reads_them():
    """A recording is as old as its autocast's casts, outlives a cache that is cleared, and holds no more than those."""
    net, tape = network(), Tape()
    linears = [one for one in net.modules() if isinstance(one, torch.nn.Linear) and one.in_features in (DIM, 4 * DIM)]
    low = [one for one in linears if one is not net.head]
    with cast_once(net), torch.autocast("cpu", torch.bfloat16):
        with replaying(net, tape) as replayer:
            due = ask(net)
            (recording,) = replayer.recordings.values()
            own = {one.untyped_storage()._cdata for one in (*net.parameters(), *net.buffers(), *recording.inputs)}
            casts = sorted(one.nbytes() for at, one in recording.reads.items() if at not in own)
            expected = [2 * p.numel() for one in low for p in one.parameters()]
            assert casts == sorted(expected)
            for one in low:
                one.weight.mul_(1.5)
            assert torch.equal(ask(net), due)  # stale by itself, as autocast's casts are: so it ends with them
            torch.clear_autocast_cache()
            assert torch.equal(ask(net), due)
        assert not replayer.recordings


def test_what_operations_read_and_do_not_make():
    a, b = torch.ones(3), torch.ones(3)
    with Reads() as reads:
        c = a + 1
        c.mul_(b[:2].sum())
    assert set(reads.kept) == {one.untyped_storage()._cdata for one in (a, b)}


# --- what is refused ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_cannot_be_recorded_is_told():
    net, tape = network(causal=True), Tape()
    x_BL = texts(2, 0)

    def told(*args):
        for _ in range(ASKED + 1):
            net(*args)
        return why("eager")[-1]

    with replaying(net, tape):
        assert "it reads a cache" in told(x_BL, None, net.commit(x_BL, net.new_cache(2))[1])
        assert "an input lies on meta, the network on cpu" in told(x_BL.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert "autocast is not as it was" in told(x_BL)
        with torch.enable_grad():
            assert "a gradient may be asked for" in told(x_BL)
        net.train()
        assert "the network is in training mode" in told(x_BL)
    assert not tape.records


class Waiting(torch.nn.Module):
    """A block whose host waits for the device, which no capture can do."""

    def __init__(self, tape):
        super().__init__()
        self.tape = tape

    def forward(self, h_BLD):
        if self.tape.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return h_BLD


class Failing(Tape):
    recording = False

    def record(self, call):
        self.recording = True
        try:
            return super().record(call)
        finally:
            self.recording = False


@torch.no_grad()
def test_a_capture_that_fails_breaks_nothing_and_is_not_tried_again():
    net, tape = network(), Failing()
    due = ask(net)
    net.final.norm = torch.nn.Sequential(net.final.norm, Waiting(tape))
    with replaying(net, tape):
        assert torch.equal(ask(net), due)
        net.final.norm = net.final.norm[0]
        ask(net, 3)
    assert not tape.records
    assert "recording fails here (RuntimeError: operation not permitted when stream is capt" in why("eager")[-1]


@torch.no_grad()
def test_other_figures_are_never_used(monkeypatch):
    net, tape = network(), Tape()
    own = tape.record

    def wrong(call):
        right = own(call)
        return lambda: right().mul_(1 + 1e-6)

    monkeypatch.setattr(tape, "record", wrong)
    due = ask(net)
    with replaying(net, tape):
        assert torch.equal(ask(net), due)
    assert "its figures are not those of the pass as it is" in why("eager")[-1]


@torch.no_grad()
def test_a_recording_that_is_no_faster_is_not_used(monkeypatch):
    told = itertools.cycle([1.0, 1.0])
    monkeypatch.setattr(replay, "seconds", lambda way, wait: next(told))
    net, tape = network(), Tape()
    with replaying(net, tape) as replayer:
        ask(net, times=3 * ASKED)
        assert tape.records == 1 and tape.replays == 1 and not replayer.recordings
        assert "measured: 1e+03 ms a pass, kernel by kernel 1e+03 ms" in why("eager")[-1]


@torch.no_grad()
def test_ways_are_timed(monkeypatch):
    monkeypatch.undo()
    waits = []
    took = replay.seconds(lambda: torch.ones(1), lambda: waits.append(1))
    assert 0 < took < 1 and len(waits) == 2 * replay.TRIED


def test_a_cpu_records_nothing_and_says_so():
    net = network()
    assert recorder_on(torch.device("cpu")) is None
    assert "kernels are recorded on CUDA only, not on cpu" in why("eager")[0]
    with replaying(net, None) as replayer:
        assert replayer is None and "forward" not in vars(net)
    assert [row[:2] for row in REPLAY.survey("cuda", torch.float32)] == [("replay", "auto"), ("eager", "by name")]


def test_the_network_is_as_before_whatever_happens():
    net, tape = network(), Tape()
    with pytest.raises(ZeroDivisionError), replaying(net, tape) as outer:
        with replaying(net, Tape()) as inner, torch.no_grad():
            assert inner is outer
            ask(net)
        assert isinstance(net.forward, Replayer) and outer.recordings  # what was within has not ended it
        raise ZeroDivisionError
    assert "forward" not in vars(net) and not outer.recordings


class FakeCuda:
    """What `CudaGraphs` asks of torch.cuda, as a list of what was done on which stream."""

    def __init__(self, monkeypatch, fails):
        self.done, self.now, self.fails = [], "main", fails
        capture = inspect.signature(torch.cuda.graph.__init__)

        @contextmanager
        def graph(*args, **named):
            told = capture.bind(None, *args, **named).arguments
            assert (told["pool"], told["stream"].name) == ("pool", "aside")
            assert told["capture_error_mode"] == "thread_local"
            self.now = "capturing"
            yield
            if self.fails:  # as torch's own: what follows, its return to the stream before, is left out
                raise RuntimeError("capture failed")
            self.now = "main"

        for name, value in {
            "graph_pool_handle": lambda: "pool",
            "Stream": lambda device: FakeStream("aside", self),
            "current_stream": lambda: FakeStream(self.now, self),
            "set_stream": lambda stream: setattr(self, "now", stream.name),
            "stream": self.on,
            "device": lambda device: nullcontext(),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.done.append("replayed")),
            "graph": graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextmanager
    def on(self, stream):
        before, self.now = self.now, stream.name
        yield
        self.now = before


class FakeStream:
    def __init__(self, name, cuda):
        self.name, self.cuda = name, cuda

    def wait_stream(self, other):
        self.cuda.done.append(f"{self.name} waits for {other.name}")


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_warms_up_aside_and_leaves_the_stream_as_it_was(monkeypatch, fails):
    cuda = FakeCuda(monkeypatch, fails)
    graphs, out = CudaGraphs(torch.device("cuda:0")), torch.ones(1)

    def call():
        cuda.done.append(f"called on {cuda.now}")
        return out

    with pytest.raises(RuntimeError, match="capture failed") if fails else nullcontext():
        assert graphs.record(call)() is out
    order = ["aside waits for main", "called on aside", "main waits for aside", "called on capturing", "replayed"]
    assert cuda.done == order[: 4 if fails else 5] and cuda.now == "main"


# --- on a GPU -----------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("low", [False, True])
@torch.no_grad()
def test_graphs_on_a_gpu(low):
    """Several shapes in turn from one pool of memory, at other inputs each time, and after casts were dropped."""
    net = network().cuda()
    graphs = CudaGraphs(torch.device("cuda"))
    asked = [
        (texts(batch, seed).cuda(), torch.tensor([0.1 + seed], device="cuda"))
        for seed in range(8)
        for batch in (4, 1, 3)
    ]
    with cast_once(net), torch.autocast("cuda", torch.bfloat16, enabled=low):
        due = [net(*one) for one in asked]
        with replaying(net, graphs) as replayer:
            found = [net(*one) for one in asked]
            torch.clear_autocast_cache()
            junk = [torch.full((1 << 20,), float("nan"), device="cuda") for _ in range(8)]  # over what was freed
            again = [net(*one) for one in asked]
            assert len(replayer.recordings) == 3 and len(junk) == 8
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again, due, strict=True))


@pytest.mark.cuda
@torch.no_grad()
def test_a_block_that_waits_breaks_nothing_on_a_gpu():
    class Waits(torch.nn.Module):
        def forward(self, h_BLD):
            return h_BLD * float(h_BLD.abs().max() > 0)

    net = network().cuda()
    net.final.norm = torch.nn.Sequential(net.final.norm, Waits())
    asked = [(texts(2, seed).cuda(), torch.tensor([0.1 + seed], device="cuda")) for seed in range(6)]
    due = [net(*one) for one in asked]
    stream = torch.cuda.current_stream()
    with replaying(net, CudaGraphs(torch.device("cuda"))) as replayer:
        found = [net(*one) for one in asked]
        assert not replayer.recordings
    assert torch.cuda.current_stream() == stream
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    assert "recording fails here" in why("eager")[-1]
