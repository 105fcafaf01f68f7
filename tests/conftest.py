"""What every test stands on: one thread, seeded randomness, a cache of its own, devices that may be absent.

Deterministic algorithms are *not* asked of torch here: tests see the package as a user runs it.
"""

from __future__ import annotations

import os

# Before torch is imported, and for the processes that tests start.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
for _name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(_name, "1")  # a test that reaches for the network fails at once
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which torch may do

import random  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from tests.smoke import smoke_run  # noqa: E402

# The same examples each time; no file of failures found before, which would differ between machines.
hypothesis.settings.register_profile("house", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("house")


def pytest_configure(config):
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that the workers of one session share; without workers it is just the session's. A session inside
    another takes that one's (`tests/test_emulated.py`).
    """
    if given := os.environ.get("SHARED_FOLDER"):
        return Path(given)
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(shared_folder):
    """Packed text is made once a session, and never in the folder one happens to be in."""
    folder = shared_folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def smoke(shared_folder, cache_of_the_session):
    """``smoke(name)`` is the finished run of a smoke recipe, trained and evaluated once a session."""

    def finished(name):
        return smoke_run(name, shared_folder / "smoke", cache_of_the_session)

    return finished


@pytest.fixture(autouse=True)
def alike(request):
    """Each test starts alike, whatever ran before it: global generators (the package itself does not draw from
    them), threads (a recipe may have changed them), and denormal numbers, which training and sampling flush to zero
    and which hypothesis insists on having.
    """
    torch.set_flush_denormal(request.node.get_closest_marker("hypothesis") is None)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
