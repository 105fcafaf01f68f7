"""Kill and hinder the workbench at random moments, again and again: nothing is lost, and the end is the same.

``python tests/soak.py`` is the short form, ``--kills 200`` the full one, ``--seed`` draws other moments. Sessions of
the command line train, pack, measure and sample a small project; each is killed (SIGKILL) by the clock or at the k-th
change of a file, or meets a fault (disk, memory, signals, clocks, damaged files, a second writer). After each: no file
under its final name is half written, no whole checkpoint is gone, and the session after goes on; in the end weights,
tokens, figures and samples are those of a project that was left alone, bit for bit. Prints a table; exit code 1 where
one of these does not hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from tests.faults import project as projects  # noqa: E402
from tests.faults.project import TRAIN, finals, half_written, run_of, whole_steps  # noqa: E402
from tests.faults.scenes import scenes  # noqa: E402
from tests.faults.sessions import Ended, Hindrance, killed, killed_when, session  # noqa: E402
from workbench.core import index  # noqa: E402

STAGES = ("packing", "training", "training", "a change of a file", "a change of a file", "evaluation", "sampling")


class Soak:
    """A project left alone, and others that are not."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Train the one that is left alone."""
        self.folder, self.rng, self.out = folder, random.Random(seed), folder / "said"
        self.rows = self.bad = self.ends = self.stuck = 0
        straight = projects.make(folder / "straight")
        done = session(TRAIN, straight, self.out)
        if done.status:
            raise SystemExit(f"the project that is left alone failed:\n{done.said}")
        self.usual, self.truth = done.seconds, finals(straight, self.out)
        self.text = straight
        print(f"left alone: {self.truth['step']} updates, packed, trained and measured in {self.usual:.1f} s")
        print(f"{'#':>4}  {'what':<34}{'after s':>8}{'status':>7}  {'whole steps':<14}verdict")

    def row(self, what: str, ended: Ended | None, steps: set[int], wrong: str) -> None:
        """A line of the table."""
        self.rows += 1
        self.bad += bool(wrong)
        told = f"{ended.seconds:>8.2f}{ended.status:>7}" if ended else f"{'':>15}"
        shown = ",".join(map(str, sorted(steps))) or "-"
        print(f"{self.rows:>4}  {what:<34}{told}  {shown:<14}{wrong or 'whole'}", flush=True)

    def fresh(self, name: str) -> Path:
        """A project in which nothing was done."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return projects.make(self.folder / name)

    def kill(self, project: Path) -> Path:
        """One kill in a project; the project to go on with (a new one where this one has come to its end)."""
        stage, before = self.rng.choice(STAGES), whole_steps(project)
        run = run_of(project)
        had = run is not None and run.results.is_file()
        words = TRAIN
        if run is not None and before and stage == "evaluation":
            words = ["eval", str(run.path), "--cache", "cache"]
        elif run is not None and before and stage == "sampling":
            words = ["sample", str(run.path), "--count", "2"]
        elif stage == "packing":
            shutil.rmtree(project / "cache" / "tokens", ignore_errors=True)
        if stage == "a change of a file":
            hindrance = Hindrance(self.rng.randrange(1, 90), "kill")
            ended = session(words, project, self.out, lambda: hindrance.install(project))
        else:
            # on a machine that got busier since, kills by the clock of the project left alone would let nothing be done
            span = self.usual * (0.5 if words != TRAIN else 1.0) * (1 + 0.2 * self.stuck)
            ended = killed(words, project, self.out, self.rng, span)
        after = whole_steps(project)
        self.stuck = self.stuck + 1 if after == before and ended.status else 0
        wrong = "; ".join(half_written(project))
        if max(before, default=0) > max(after, default=0):
            wrong += f" steps {sorted(before)} became {sorted(after)}"
        if had and run is not None and not run.results.is_file():
            wrong += " its figures are gone"
        if not ended.in_words or ended.status not in (0, -9):
            wrong += f" status {ended.status}: {ended.said[-300:]}"
        self.row(f"kill in {stage}", ended, after, wrong)
        if words == TRAIN and ended.status == 0:
            self.compare(project, "end of a killed project")
            return self.fresh("killed")
        return project

    def compare(self, project: Path, what: str) -> None:
        """Finish a project and hold it against the one left alone."""
        ended = session(TRAIN, project, self.out)
        if ended.status:
            self.row(what, ended, whole_steps(project), f"it does not go on: {ended.said[-400:]}")
            return
        found = finals(project, self.out)
        differ = [name for name in self.truth if found[name] != self.truth[name]]
        self.ends += not differ
        self.row(what, ended, whole_steps(project), f"differs in {', '.join(differ)}" if differ else "")

    def half_trained(self) -> Path:
        """A project killed with two whole checkpoints, one to damage, one to fall back to, and updates left to make."""
        while True:
            half = self.fresh("half")
            killed_when(TRAIN, half, self.out, lambda: len(whole_steps(half)) >= 2)  # noqa: B023 (used at once)
            if len(whole_steps(half)) >= 2 and max(whole_steps(half)) < self.truth["step"]:
                return half

    def faults(self) -> None:
        """Every scene, on a project half trained."""
        half = self.half_trained()
        for scene in scenes(self.rng):
            project = self.folder / "hindered"
            shutil.rmtree(project, ignore_errors=True)
            shutil.copytree(half, project)
            before = whole_steps(project)
            wrong = scene.act(project, self.out)
            bent = "bit" in scene.name or "cut" in scene.name
            if not bent and max(before) > max(whole_steps(project), default=0):
                wrong += " a whole checkpoint is gone"
            self.row(scene.name, None, whole_steps(project), wrong)
            self.compare(project, "  and the next session")


def main() -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-faults", action="store_true", help="kills alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    index.import_parts()  # sessions are forked from here
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        soak = Soak(Path(place), chosen.seed)
        project = soak.fresh("killed")
        for _ in range(chosen.kills):
            project = soak.kill(project)
        soak.compare(project, "end of a killed project")
        if not chosen.no_faults:
            soak.faults()
        print(f"{chosen.kills} kills, {soak.rows} rows, {time.monotonic() - began:.0f} s; {soak.ends} ends, ", end="")
        print(f"all to the last bit; {soak.bad} wrong" if not soak.bad else f"{soak.bad} wrong")
    return 1 if soak.bad else 0


if __name__ == "__main__":
    sys.exit(main())
