"""Bytes that coverage leads to (by atheris, https://github.com/google/atheris): how recipes, grids, studies take them.

``python tests/fuzz_guided.py recipes --seconds 120`` begins with the shipped files and changes them where new code is
reached; ``grids`` and ``studies`` are the others. It ends at the first input that is neither
taken nor told in words: its bytes are kept (``crash-…``), and given as a file the same command runs it again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

try:
    import atheris
except ImportError:
    sys.exit("coverage-guided fuzzing needs atheris: pip install atheris")

with atheris.instrument_imports(include=["workbench", "yaml"]):
    from tests.faults.fuzz_recipes import plans, reads
    from tests.faults.guard import Guard
    from workbench.core.index import import_parts

MOST = 1 << 14
"""Bytes of an input."""


def study(file: Path, data: bytes) -> Callable[[], object]:
    """A study's file, planned."""
    from workbench.study.plan import planned

    def act() -> None:
        file.write_bytes(data)
        planned(file)

    return act


TARGETS: dict[str, tuple[str, Callable[[Path, bytes], Callable[[], object]], str]] = {
    "recipes": ("r.yaml", reads, "recipes/smoke/*.yaml"),
    "grids": ("g.yaml", plans, "recipes/grids/*.yaml"),
    "studies": ("s.yaml", study, "recipes/studies/*.yaml"),
}
"""Name → (the file's name, what reads it, where it begins)."""


def main() -> None:
    """Fuzz until the time is over or something is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("inputs", nargs="*", help="files to run again, in place of fuzzing")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    name, reader, beginning = TARGETS[chosen.target]
    import_parts()
    with tempfile.TemporaryDirectory() as place:
        home, corpus = Path(place) / "home", Path(place) / "corpus"
        home.mkdir()
        corpus.mkdir()
        for number, file in enumerate(sorted(ROOT.glob(beginning))):
            shutil.copy(file, corpus / f"{number}-{file.name}")
        guard = Guard(home)

        def one(data: bytes) -> None:
            guard.try_one("input", reader(home / name, data))
            if guard.findings:
                raise AssertionError(guard.findings[0].why)

        words = [f"-max_total_time={chosen.seconds}", f"-seed={chosen.seed}", f"-max_len={MOST}", "-handle_alrm=0"]
        atheris.Setup([sys.argv[0], *words, *(chosen.inputs or [str(corpus)])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
