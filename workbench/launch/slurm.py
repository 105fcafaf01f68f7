"""Workers on a SLURM cluster: an array of jobs, each a worker that takes cells until none is left.

Jobs end at their time limit or are pre-empted at any time: the worker saves on SIGTERM and the job is queued again, to
go on from the checkpoint. (submitit would end the process from its signal handler, before the trainer can save: so the
script is ours, and short.)
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from workbench.core.bounds import Count, Natural
from workbench.core.errors import WorkbenchError
from workbench.core.files import write_text
from workbench.launch.base import Job, Launcher

GRACE = 90
"""Seconds before the time limit at which a worker is asked to save."""
POLL = 5.0
"""Seconds between looks at the queue."""
SCRIPT = """#!/bin/bash
{options}
# At the time limit's warning the worker saves what it has, and this job waits in the queue again.
again() {{ kill -TERM "$worker"; wait "$worker"; scontrol requeue "$SLURM_JOB_ID"; }}
trap again USR1
cd {folder}
{setup}
{command} < /dev/null &
worker=$!
wait "$worker"
"""


@Launcher.register("slurm")
class Slurm(Launcher):
    """An array of jobs on a SLURM cluster.

    Settings:
        workers: jobs of the array, one worker each.
        minutes: time limit of a job; what is not done by then goes on in the same job, queued again.
        gpus: of a job; more where a cell's training takes more (``train.parallel.processes``).
        cpus: of a job.
        memory_gb: of a job; the partition's default where left out.
        partition: where; the cluster's default where left out.
        account: who pays.
        options: further options of sbatch, as in {qos: long, constraint: h100}.
        setup: lines of shell before the worker starts, as in [module load cuda].
        follow: wait, and tell how it goes, until all is done.
    """

    def __init__(
        self,
        workers: Count = 4,
        minutes: Count = 240,
        gpus: Natural = 1,
        cpus: Count = 8,
        memory_gb: Count | None = None,
        partition: str | None = None,
        account: str | None = None,
        options: dict[str, str] | None = None,
        setup: list[str] | None = None,
        follow: bool = False,
    ) -> None:
        """Keep the settings."""
        self.workers, self.setup, self.follow = workers, setup or [], follow
        self.minutes, self.gpus = minutes, gpus
        self.options = {
            "time": str(minutes),
            "cpus-per-task": str(cpus),
            **({"mem": f"{memory_gb}G"} if memory_gb else {}),
            **({"partition": partition} if partition else {}),
            **({"account": account} if account else {}),
            **(options or {}),
        }

    def script(self, job: Job, count: int) -> str:
        """The batch script of an array of ``count`` workers."""
        options = {
            "job-name": job.name,
            "array": f"0-{count - 1}",
            "output": str((job.folder.workers / "slurm-%A_%a.log").resolve()),
            "open-mode": "append",
            "signal": f"B:USR1@{min(GRACE, 30 * self.minutes)}",
            **({"gres": f"gpu:{max(self.gpus, job.processes)}"} if self.gpus else {}),
            **self.options,
        }
        return SCRIPT.format(
            options="\n".join(["#SBATCH --requeue", *(f"#SBATCH --{name}={value}" for name, value in options.items())]),
            folder=shlex.quote(str(Path.cwd())),
            setup="\n".join(self.setup),
            command=shlex.join([sys.executable, "-m", "workbench", *job.command, "--worker", "alone"]),
        )

    def run(self, job: Job) -> str:
        """See the base: submits, and waits if it is to follow.

        Raises:
            WorkbenchError: there is no sbatch here, or it refuses.
        """
        if shutil.which("sbatch") is None:
            raise WorkbenchError("launcher slurm: there is no sbatch on this machine; start the grid on a login node")
        file = job.folder.path / "slurm.sh"
        write_text(file, self.script(job, min(self.workers, job.due)))
        done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True)
        if done.returncode:
            raise WorkbenchError(f"launcher slurm: sbatch refused {file}: {done.stderr.strip()}")
        number = done.stdout.strip().partition(";")[0]
        if not self.follow:
            return f"job {number}: `squeue --job {number}` shows it, `scancel {number}` ends it, --status its cells"
        while job.watch() and _queued(number):
            time.sleep(POLL)
        job.watch()
        return f"job {number} has ended"


def _queued(number: str) -> bool:
    """Whether a job of the array is waiting or running; true where the queue does not answer."""
    done = subprocess.run(["squeue", "--noheader", "--job", number, "--format=%T"], capture_output=True, text=True)
    if done.returncode:
        return not re.search("Invalid job id", done.stderr)
    return bool(done.stdout.strip())
