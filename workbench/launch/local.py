"""Workers on this machine: processes that share a grid's cells by locks.

Each worker is `workbench grid FILE --worker`, the same program as any second invocation, so that what is true of
several invocations is true of workers. It ends when its parent does: it reads its standard input, which then closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from workbench.grid.cells import Planned
from workbench.grid.folder import GridFolder

POLL = 0.5
"""Seconds between looks at the workers."""


@dataclass
class Worker:
    """A process and its log."""

    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes] = field(repr=False)


def default_workers(gpus: int, cores: int) -> int:
    """As many as there are GPUs, else one for every two cores."""
    return gpus or max(1, cores // 2)


def run_workers(
    planned: Planned,
    folder: GridFolder,
    command: Sequence[str],
    count: int,
    gpus: int,
    watch: Callable[[], bool],
) -> int:
    """Keep ``count`` workers at ``command`` until they have done all they can; how many of them ended in error.

    ``watch`` is called about twice a second and says whether anything is left to do (a killed worker is replaced only
    then). Worker i sees GPU i modulo ``gpus`` and an even share of the cores.
    """
    cores = len(os.sched_getaffinity(0))
    workers = [_start(number, folder, command, count, gpus, cores) for number in range(count)]
    errors = 0
    try:
        while workers:
            time.sleep(POLL)
            more = watch()
            for worker in list(workers):
                status = worker.process.poll()
                if status is None:
                    continue
                worker.log.close()
                workers.remove(worker)
                if status < 0:
                    folder.mourn(planned.cells, worker.process.pid, signal.Signals(-status).name)
                    if more:
                        workers.append(_start(worker.number, folder, command, count, gpus, cores))
                elif status:
                    errors += 1
    finally:
        for worker in workers:  # they save what they have on SIGTERM
            worker.process.terminate()
        for worker in workers:
            worker.process.wait()
            worker.log.close()
    return errors


def end_with_parent() -> None:
    """In a worker: ask this process to end, saving what it has, when its parent's end of standard input closes."""

    def listen() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()


def log_of(folder: GridFolder, number: int) -> Path:
    """Where a worker's output goes."""
    return folder.workers / f"{number}.log"


def _start(
    number: int, folder: GridFolder, command: Sequence[str], count: int, gpus: int, cores: int
) -> Worker:
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = _visible(number % gpus)
    log = open(log_of(folder, number), "ab")  # noqa: SIM115 (open as long as its process)
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # a key that interrupts reaches the parent alone, which asks the workers to end
    )
    return Worker(number, process, log)


def _visible(index: int) -> str:
    """The name of GPU ``index`` among those that this process may see."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[index] if allowed else str(index)
