"""What the first process prepares may last longer than processes wait for one another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import time
from datetime import timedelta
from workbench.train import parallel
parallel.PATIENCE, parallel.BEAT = timedelta(seconds=2), 0.5
here = parallel.join("cpu")
if here.lead:
    with here.busy():
        time.sleep(6)
print("heard", here.told("at last" if here.lead else ""), flush=True)
"""


def said(tmp_path: Path) -> str:
    script = tmp_path / "told.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120).stdout


def test_the_others_wait_for_the_first_however_long_it_is_busy(tmp_path: Path) -> None:
    assert said(tmp_path).count("heard at last") == 2
