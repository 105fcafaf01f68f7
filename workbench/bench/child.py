"""One way of one benchmark in this process: told as JSON, printed as JSON."""

from __future__ import annotations

import json
import sys

from workbench.bench.base import Meter
from workbench.bench.run import Task, here, rebuilt


def main(words: str) -> None:
    """Measure and print."""
    asked = json.loads(words)
    task = Task("", asked["data"], rebuilt(asked["data"]))
    meter = Meter(asked["device"], asked["threads"], asked["precision"])
    print(json.dumps(here(task, asked["way"], asked["case"], meter)))


if __name__ == "__main__":
    main(sys.argv[1])
