"""A run that is at hand asked downstream tasks, in this process."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.core.errors import WorkbenchError
from workbench.metrics.asking import Answered, Asking
from workbench.metrics.judge import require
from workbench.opening import Opened

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


def answered(opened: Opened, asking: Asking) -> dict[str, Answered]:
    """What a run answers, by task; items in the harness's order.

    Raises:
        WorkbenchError: the harness is not installed, a task is not known to it, is several, or has no ``acc``.
    """
    require("lm_eval=lm_eval", what="metric accuracy")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from workbench.tasks.model import Workbench

    manager = TaskManager(include_path=asking.folder or None)
    unknown = [task for task in asking.tasks if task not in manager.all_tasks]
    if unknown:
        where = f" in {asking.folder}" if asking.folder else "; name a folder (workbench tasks prepare writes one)"
        raise WorkbenchError(f"the harness knows no task {unknown[0]!r}{where}")
    several = [name for name in asking.tasks if name not in manager.all_subtasks]
    if several:
        raise WorkbenchError(
            f"{several[0]!r} is no task but a name for several; ask for those that are wanted: "
            + ", ".join(_members(manager, several[0]))
        )
    model = Workbench(opened, scoring=asking.scoring, draws=asking.draws, batch_size=asking.batch)
    with _quiet():
        found = simple_evaluate(
            model=model, tasks=list(asking.tasks), limit=asking.limit or None, task_manager=manager, bootstrap_iters=0,
            log_samples=True, verbosity="ERROR",
        )  # fmt: skip
    how = f"lm-evaluation-harness, {asking.scoring}, {asking.draws} draws"
    answers = {}
    for task in asking.tasks:
        items = sorted(found["samples"][task], key=lambda item: item["doc_id"])
        if not items or "acc" not in items[0]:
            raise WorkbenchError(f"task {task!r} has no figure acc; ask one of choices, or LAMBADA")
        answers[task] = Answered([float(item["acc"]) for item in items], [item["doc_hash"] for item in items], how)
    return answers


def _members(manager: TaskManager, name: str) -> list[str]:
    """What a group or a tag of tasks stands for, as the harness's index has it: no task is loaded."""
    entry = manager.task_index[name]
    if name in manager.all_tags:
        return sorted(entry.tags)
    inside = [one if isinstance(one, str) else one.get("task") or one.get("group") for one in entry.cfg["task"]]
    return [str(one) for one in inside]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness logs what it does and draws bars; failures are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
