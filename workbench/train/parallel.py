"""Training by several processes under torchrun: each takes its slice of the global batch.

`Parallel` is this process among them; a `workbench.train.sharing.Sharing` says what of the network each holds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core.errors import WorkbenchError

PATIENCE = timedelta(hours=2)
"""How long ranks wait for the first one to evaluate and to save."""
BUSY, BEAT = "…", 60.0
"""What the first process says while it prepares something, and after how many seconds again."""


@dataclass(frozen=True)
class Parallel:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def lead(self) -> bool:
        """Whether this process writes, evaluates and speaks."""
        return self.rank == 0

    def slices(self, batch: int, accumulate: int) -> list[slice]:
        """This rank's micro-batches of the global batch, as slices of it.

        Micro-batch m of rank r is part r · accumulate + m of world × accumulate equal parts: two ranks see what one
        rank with twice the accumulation sees.

        Raises:
            WorkbenchError: the batch cannot be cut into equal parts.
        """
        parts = self.world * accumulate
        if batch % parts:
            raise WorkbenchError(
                f"train.batch: {batch} sequences cannot be cut into {parts} equal parts "
                f"({self.world} processes × train.accumulate {accumulate}); choose a multiple of {parts}"
            )
        size = batch // parts
        first = self.rank * accumulate
        return [slice(part * size, (part + 1) * size) for part in range(first, first + accumulate)]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes."""
        return values if self.world == 1 else self.sum(values) / self.world

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in place where there are several."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: int) -> int:
        """The largest of the processes' flags, so that all of them do the same; no GPU is waited for."""
        if self.world == 1:
            return flag
        shared = torch.tensor(flag)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared.item())

    def told(self, words: str) -> str:
        """What the first process says, in all of them; the others wait as long as it is `busy`.

        Raises:
            WorkbenchError: one of them has ended, or does not answer.
        """
        said = [words]
        while self.world > 1:
            try:
                dist.broadcast_object_list(said)
            except RuntimeError as error:
                reason = f"{error!s:.200}".splitlines()[0]
                raise WorkbenchError(f"a process of this training has ended: {reason}") from error
            if self.lead or said[0] != BUSY:
                break
        return said[0]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """What the first process does before it is `told`, however long it takes: nobody's patience ends meanwhile."""
        if self.world == 1 or not self.lead:
            yield
            return
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                try:
                    dist.broadcast_object_list([BUSY])
                except RuntimeError:  # somebody has ended, which the next exchange says
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def wait(self) -> None:
        """Meet the other processes."""
        self.any(0)


def join(device: str = "auto") -> Parallel:
    """Join the processes that torchrun started (its environment says how many), or stay alone.

    ``device``: what ``train.device`` says.

    Raises:
        WorkbenchError: this process has no GPU of its own, and is to train on one.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Parallel()
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    on_gpu = torch.cuda.is_available() and device.partition(":")[0] in ("auto", "cuda")
    if on_gpu:
        if local >= (gpus := torch.cuda.device_count()):
            raise WorkbenchError(
                f"process {local + 1} of this machine has no GPU of its own: there are {gpus}; start no more processes "
                "than that (--nproc-per-node, train.parallel.processes), or set train.device: cpu"
            )
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=_store(world), rank=rank, world_size=world, timeout=PATIENCE)
    return Parallel(rank, world, local)


def _store(world: int) -> dist.Store | None:
    """Where the processes find one another, by the count of restarts; None: torch's own way.

    torchrun's agent keeps its store when it starts the processes again, and torch (2.13) reads in it the addresses of
    those that are dead: they would be waited for.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    kept = dist.TCPStore(host, port, world, is_master=False, timeout=PATIENCE)
    return dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", kept)


def leave() -> None:
    """End what ``join`` began."""
    if dist.is_initialized():
        dist.destroy_process_group()
