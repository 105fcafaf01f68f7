"""From a profiler's events to a table: what each region took, its part of the backward pass included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch.autograd import DeviceType

from workbench.profiling.regions import region_of

NODE = "autograd::engine::evaluate_function: "
"""Begins the name of what runs one node of the graph backward."""
REST = "rest"


class Event(Protocol):
    """What is read of a profiler's event."""

    name: str
    device_type: Any
    cpu_parent: Any
    sequence_nr: int
    thread: int
    time_range: Any
    self_cpu_time_total: float
    self_device_time_total: float
    self_cpu_memory_usage: int
    self_device_memory_usage: int


@dataclass
class Share:
    """Of one region, for one step: milliseconds forward and backward, of the host and of the device; MB that forward
    leaves allocated (kept for the backward pass, gradients that the head makes at once); how often it was entered."""

    forward_ms: float = 0.0
    backward_ms: float = 0.0
    device_forward_ms: float = 0.0
    device_backward_ms: float = 0.0
    kept_mb: float = 0.0
    calls: float = 0.0

    @property
    def host_ms(self) -> float:
        """Both ways on the host."""
        return self.forward_ms + self.backward_ms

    @property
    def device_ms(self) -> float:
        """Both ways on the device."""
        return self.device_forward_ms + self.device_backward_ms


@dataclass
class Table:
    """A profile: regions of a step, sorted by time; ``facts``: figures beside it, by name."""

    shares: dict[str, Share]
    facts: dict[str, float] = field(default_factory=dict)
    on_device: bool = False

    def total(self) -> float:
        """Milliseconds of a step that the regions add up to (of the device, where there is one)."""
        return sum(self.of(share) for share in self.shares.values())

    def of(self, share: Share) -> float:
        """What sorts the table."""
        return share.device_ms if self.on_device else share.host_ms

    def rows(self) -> list[tuple[str, Share, float]]:
        """(region, its share, fraction of the total), the largest first."""
        total = self.total() or 1.0
        ordered = sorted(self.shares.items(), key=lambda item: -self.of(item[1]))
        return [(name, share, self.of(share) / total) for name, share in ordered]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        regions = {
            name: {**{key: round(value, 4) for key, value in vars(share).items()}, "share": round(part, 4)}
            for name, share, part in self.rows()
        }
        return {"regions": regions, **{name: round(value, 4) for name, value in self.facts.items()}}


def tabulate(events: Iterable[Event], root: str, steps: int, on_device: bool = False) -> Table:
    """Self times of all events inside regions called ``root``, summed by the innermost region around each.

    A node of the backward pass belongs to the region whose operation made it: both carry the same sequence number.
    Its own operations are below it. What no region claims is ``root``'s own. Events of the host alone are summed: a
    device's work is in the times of those that asked for it, and regions show on the device a second time.
    """
    hosts = (event for event in events if event.device_type == DeviceType.CPU)
    inside = sorted((event for event in hosts if _within(event, root)), key=lambda event: event.time_range.start)
    owner: dict[int, str] = {}
    for event in inside:
        # a node is made by the last operation that bears its number: those before it only saw it coming
        if event.sequence_nr >= 0 and _node(event) is None and (region := _region(event)) is not None:
            owner[event.sequence_nr] = region
    shares: dict[str, Share] = {}
    for event in inside:
        node = _node(event)
        region = _region(event) if node is None else owner.get(node.sequence_nr)
        share = shares.setdefault(REST if region in (None, root) else str(region), Share())
        host, device = event.self_cpu_time_total / 1e3 / steps, event.self_device_time_total / 1e3 / steps
        if node is None:
            share.forward_ms += host
            share.device_forward_ms += device
            memory = event.self_device_memory_usage if on_device else event.self_cpu_memory_usage
            share.kept_mb += memory / 2**20 / steps
            share.calls += (region_of(event.name) is not None) / steps
        else:
            share.backward_ms += host
            share.device_backward_ms += device
    return Table(shares, on_device=on_device)


def _chain(event: Event) -> Iterable[Event]:
    here: Event | None = event
    while here is not None:
        yield here
        here = here.cpu_parent


def _within(event: Event, root: str) -> bool:
    """Inside the root region, or on the thread that runs the graph backward for a device."""
    return any(region_of(one.name) == root or one.name.startswith(NODE) for one in _chain(event))


def _node(event: Event) -> Event | None:
    return next((one for one in _chain(event) if one.name.startswith(NODE)), None)


def _region(event: Event) -> str | None:
    return next((region for one in _chain(event) if (region := region_of(one.name)) is not None), None)


def lines(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(heads, rows) in words."""
    twice = any(share.backward_ms for share in table.shares.values())
    heads = ["region", "share", *(["forward ms", "backward ms", "keeps MB"] if twice else ["ms"]), "calls"]
    heads += ["host ms"] if table.on_device else []
    rows = []
    for name, share, part in table.rows():
        forward, backward = (
            (share.device_forward_ms, share.device_backward_ms)
            if table.on_device
            else (share.forward_ms, share.backward_ms)
        )
        row = [name, f"{part:.1%}", f"{forward:.2f}"]
        row += [f"{backward:.2f}" if backward else "", _mb(share.kept_mb)] if twice else []
        row += [f"{share.calls:.0f}" if share.calls else ""]
        rows.append((*row, f"{share.host_ms:.2f}") if table.on_device else tuple(row))
    return tuple(heads), rows


def _mb(value: float) -> str:
    return f"{value:,.1f}" if value >= 0.05 else ""


def in_words(facts: Mapping[str, float]) -> list[str]:
    """Facts, a line each."""
    return [f"{name.replace('_', ' ')}: {value:,.2f}" for name, value in facts.items()]
