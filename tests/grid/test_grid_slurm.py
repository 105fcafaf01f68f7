"""A grid on a SLURM cluster: arrays, cancelling, queueing again; the figures are those of an undisturbed grid."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from tests.grid.files import figures, written
from tests.grid.slurm_cluster import absent, cluster
from workbench.cli.grid import launcher
from workbench.cli.main import main
from workbench.core.errors import RecipeError, WorkbenchError
from workbench.grid.cells import plan
from workbench.grid.folder import GridFolder
from workbench.launch.base import Job
from workbench.launch.slurm import Slurm

AXES = {"seed": [0, 1, 2]}
SETTINGS = {
    "type": "slurm", "workers": 2, "minutes": 5, "gpus": 0, "cpus": 1, "memory_gb": 1, "follow": True,
    "setup": ["export OMP_NUM_THREADS=1"],
}  # fmt: skip


def test_the_script_asks_for_what_the_settings_say(tmp_path):
    planned = plan(written(tmp_path, axes=AXES))
    job = Job("toy", GridFolder.open(planned, tmp_path), ["grid", "a file.yaml"], 3, lambda: False)
    made = Slurm(workers=8, minutes=30, gpus=2, partition="long", options={"qos": "high"}, setup=["module load cuda"])
    script = made.script(job, 3)
    asked = ("array=0-2", "time=30", "gres=gpu:2", "partition=long", "qos=high", "requeue", "signal=B:USR1@90")
    assert [line for line in asked if f"#SBATCH --{line}\n" not in script] == []
    assert "\nmodule load cuda\n" in script and "'a file.yaml' --worker alone < /dev/null &" in script
    assert "gres=gpu:4" in Slurm(gpus=2).script(replace(job, processes=4), 3)
    assert "gres" not in Slurm(gpus=0).script(replace(job, processes=4), 3)
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_settings_of_a_launcher_are_checked_like_any_parts(tmp_path):
    with pytest.raises(RecipeError, match="no launcher 'slrum'"):
        launcher("slrum", None)
    (tmp_path / "cluster.yaml").write_text("{type: slurm, partitoin: long}")
    with pytest.raises(RecipeError, match="partitoin"):
        launcher(str(tmp_path / "cluster.yaml"), None)
    assert launcher("local", 3).workers == 3


def test_without_a_cluster_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    planned = plan(written(tmp_path, axes=AXES))
    job = Job("toy", GridFolder.open(planned, tmp_path), [], 3, lambda: False)
    with pytest.raises(WorkbenchError, match="no sbatch on this machine"):
        Slurm().run(job)


@pytest.mark.skipif(bool(absent()), reason=absent() or "there is a cluster")
def test_a_grid_runs_on_a_cluster_though_a_job_is_cancelled_and_one_is_queued_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = {"train.steps": 300, "train.checkpoint_every": 20, "evaluations.valid": None}
    file = written(tmp_path, axes=AXES, set=steps)
    alone = ["grid", str(file), "--runs", "alone", "--grids", "alone", "--workers", "1"]
    assert main(alone) == 0
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(SETTINGS))
    command = ["workbench", "grid", str(file), "--launcher", "cluster.yaml"]
    with cluster(tmp_path / "slurm"):
        process = subprocess.Popen([sys.executable, "-m", *command])
        claims = tmp_path / "grids"
        while sum(path.stat().st_size > 0 for path in claims.glob("*/claims/*")) < 2:
            assert process.poll() is None
            time.sleep(0.2)
        queued = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
        first, second = sorted(queued.stdout.split())[:2]
        subprocess.run(["scontrol", "requeue", first], check=True)
        subprocess.run(["scancel", second], check=True)
        process.wait(timeout=300)
        assert process.returncode == 0
    assert len(figures(tmp_path / "runs")) == 3
    assert figures(tmp_path / "runs") == figures(tmp_path / "alone")
