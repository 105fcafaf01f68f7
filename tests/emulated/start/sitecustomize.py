"""Python imports this at its start where this folder is on its path: processes that an emulated one starts are too."""

import os
from pathlib import Path

if library := os.environ.get("EMULATED_CUDA"):
    from tests.emulated import device

    device.install(Path(library))
