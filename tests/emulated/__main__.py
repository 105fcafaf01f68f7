"""``python -m tests.emulated LIBRARY workbench ARGUMENTS`` (or ``pytest ARGUMENTS``) on an emulated CUDA device.

The last line of standard output is JSON: where the host waited, how often. LIBRARY: what ``build`` made, or a folder
to make it in. ``AUTHORS`` in the environment: a folder with the unpacked packages mamba_ssm and causal_conv1d, whose
kernels are then there (`tests.emulated.authors`).
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

from tests.emulated import device


def main(place: str, program: str, *arguments: str) -> int:
    library = Path(place)
    device.install(device.build(library) if library.is_dir() else library)
    if folder := os.environ.get("AUTHORS"):
        from tests.emulated import authors

        authors.install(Path(folder))
    from workbench.kernels import row_passes

    row_passes._installed = lambda: False  # chosen by measuring, and Triton's interpreter takes seconds a shape
    sys.argv = [program, *arguments]
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    print(json.dumps([[what, where, count] for (what, where), count in device.WAITS.most_common()]))
    return code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
