"""Workers on this machine.

Each is `workbench grid FILE --worker child`, the same program as any second invocation, so that what is true of several
invocations is true of workers. It ends when its parent does: it reads its standard input, which then closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import IO

from workbench.core.bounds import Natural
from workbench.core.errors import WorkbenchError
from workbench.launch.base import Job, Launcher

POLL = 0.5
"""Seconds between looks at the workers."""
SETTLED = 60.0
"""Seconds after which a worker that ends in error is replaced: one that fails at once would do so again."""


@dataclass
class Worker:
    """A process and its log."""

    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes] = field(repr=False)
    began: float = field(default_factory=time.monotonic)

    def worth_replacing(self, status: int) -> bool:
        """Whether one that ended so was taken from its work: killed, or stopped by an error after a while at it."""
        return status < 0 or (status > 0 and time.monotonic() - self.began > SETTLED)


@Launcher.register("local")
class Local(Launcher):
    """Processes on this machine: worker i sees GPU i (modulo their number) and an even share of the cores.

    A worker that is killed, or fails after a while, is replaced while anything is left to do. Where a cell is trained
    by several processes (``train.parallel.processes``), a worker sees as many GPUs and shares its cores among them.

    Settings:
        workers: how many; 0: one a GPU (or as many as a cell takes), else one for every two cores.
    """

    def __init__(self, workers: Natural = 0) -> None:
        """Keep the number."""
        self.workers = workers

    def run(self, job: Job) -> str:
        """See the base: waits.

        Raises:
            WorkbenchError: a cell takes more GPUs than there are.
        """
        cores, gpus = len(os.sched_getaffinity(0)), _gpus()
        if 0 < gpus < job.processes:
            raise WorkbenchError(
                f"launcher local: a cell takes {job.processes} GPUs (train.parallel.processes), and there are {gpus}; "
                "set fewer, or use a launcher that has more"
            )
        count = max(1, min(self.workers or (gpus or cores // 2) // job.processes, job.due))
        workers = [_start(number, job, count, gpus, cores) for number in range(count)]
        errors = 0
        try:
            while workers:
                time.sleep(POLL)
                more = job.watch()
                for worker in list(workers):
                    status = worker.process.poll()
                    if status is None:
                        continue
                    worker.log.close()
                    workers.remove(worker)
                    if more and worker.worth_replacing(status):
                        workers.append(_start(worker.number, job, count, gpus, cores))
                    errors += status > 0
        finally:
            for worker in workers:  # they save what they have on SIGTERM
                worker.process.terminate()
            for worker in workers:
                worker.process.wait()
                worker.log.close()
        many = "s" * (errors > 1)
        return f"{errors} worker{many} ended in error; see {job.folder.workers}" if errors else ""


def end_with_parent() -> None:
    """In a worker: ask this process to end, saving what it has, when its parent's end of standard input closes."""

    def listen() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()


def _start(number: int, job: Job, count: int, gpus: int, cores: int) -> Worker:
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // (count * job.processes))))
    if gpus:
        first = number * job.processes
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(i % gpus) for i in range(first, first + job.processes))
    log = open(job.folder.workers / f"{number}.log", "ab")  # noqa: SIM115 (open as long as its process)
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *job.command, "--worker", "child"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # a key that interrupts reaches the parent alone, which asks the workers to end
    )
    return Worker(number, process, log)


def _gpus() -> int:
    """GPUs that this process may use; torch is asked, for it is torch that will use them."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _visible(index: int) -> str:
    """The name of GPU ``index`` among those that this process may see."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[index] if allowed else str(index)
