"""Loggers beside the log: each by a made-up package, and dying at any moment without harm."""

from __future__ import annotations

import sys
import types

import pytest

from tests.train.toy import trainer
from workbench.core.build import build
from workbench.core.index import import_parts
from workbench.core.spec import resolve
from workbench.train.base import Evaluator
from workbench.train.log import Log, read_log
from workbench.train.loggers import Logger, MLflow, WandB, scalars
from workbench.train.section import Train

RECORD = {
    "step": 5, "time": 0.0, "values": {"train/loss": 2.0, "train/gone": None},
    "buckets": {"bound": [[3.0, 2.0], [0.0, 0.0]]}, "texts": {"valid/texts": ["a\nb", "c"]},
}  # fmt: skip


class Called(types.ModuleType):
    """A package that remembers what is called on it; every call gives the package itself."""

    resumed = False
    id = run_id = "id-0"

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("info", "summary"):
            return self

        def call(*words, **more):
            self.calls.append((name, words, more))
            return self

        return call

    def of(self, name):
        return [(words, more) for called, words, more in self.calls if called == name]


@pytest.fixture
def package(monkeypatch):
    def made(name):
        module = Called(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return made


def test_scalars_of_a_record():
    assert list(scalars(RECORD)) == [("train/loss", 2.0), ("bound_by_noise/t_0.0-0.5", 1.5)]


def test_weights_and_biases(package, tmp_path):
    wandb, folder = package("wandb"), tmp_path / "run-0"
    view = WandB(project="mine", group="arm", mode="offline")
    view.open(folder, {"train": {"steps": 5}}, [RECORD])
    view.finish({}, {"train/loss": 2.0}, 5)
    view.close()
    ((_, begun),) = wandb.of("init")
    assert (begun["project"], begun["group"], begun["mode"], begun["id"]) == ("mine", "arm", "offline", "run-0")
    assert begun["config"] == {"train.steps": 5} and begun["resume"] == "allow"
    (((data,), more),) = wandb.of("log")
    assert data["train/loss"] == 2.0 and "valid/texts" in data and more == {"step": 5}
    assert wandb.of("Table")[0][1]["data"] == [["a\nb"], ["c"]]
    assert wandb.of("update") == [(({"final/train/loss": 2.0},), {})]
    assert [name for name, _, _ in wandb.calls][-1] == "finish"
    wandb.calls.clear()
    wandb.resumed = True
    view.open(folder, {}, [RECORD])
    assert wandb.of("log") == [], "a run that is taken up has it already"


def test_mlflow(package, tmp_path):
    mlflow = package("mlflow")
    view = MLflow(uri="somewhere")
    for records in ([], [RECORD]):
        view.open(tmp_path, {"train": {"steps": 5}}, records)
    assert mlflow.of("set_tracking_uri") == [(("somewhere",), {})] * 2
    assert mlflow.of("start_run") == [((), {"run_name": tmp_path.name}), ((), {"run_id": "id-0"})]
    assert mlflow.of("log_params") == [(({"train.steps": "5"},), {})]
    view.show(RECORD)
    assert mlflow.of("log_metrics") == [(({"train/loss": 2.0, "bound_by_noise/t_0.0-0.5": 1.5},), {"step": 5})]
    assert mlflow.of("log_text") == [(("a\nb\n\n---\n\nc", "valid/texts/00000005.txt"), {})]
    view.close()
    assert mlflow.calls[-1][0] == "end_run"


def test_a_package_that_is_absent_is_told_and_training_goes_on(tmp_path, monkeypatch, capsys):
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    log = Log(tmp_path / "log.jsonl", 0, [WandB(), MLflow()])
    log.write(1, 0.0, 0, {"a": 1.0})
    log.close()
    told = capsys.readouterr().err
    assert "pip install wandb" in told and "pip install mlflow" in told and told.count("left aside") == 2
    assert len(read_log(tmp_path / "log.jsonl")) == 1


@pytest.mark.parametrize("when", ["open", "show", "finish", "close"])
def test_a_logger_that_dies_stops_nothing(tmp_path, capsys, when):
    alive = []

    class Dying(Logger):
        type_name = "dying"

        def open(self, folder, settings, records):
            self.act("open")

        def show(self, record):
            self.act("show")

        def finish(self, settings, figures, step):
            self.act("finish")

        def close(self):
            self.act("close")

        def act(self, name):
            alive.append(name)
            if name == when:
                raise ConnectionError("the service has gone")

    made = trainer(tmp_path, steps=10, evaluators=[Evaluator("valid", 5, lambda step, shell: {"x": 1.0})])
    made.settings.views = (Dying(),)
    assert made.fit().step == 10
    assert capsys.readouterr().err.count("logger dying: the service has gone") == 1
    assert alive[-1] == when, "it is not asked again"
    assert [record["step"] for record in read_log(made.run.log) if "train/lr" in record["values"]] == [5, 10]


def test_loggers_are_parts_of_a_recipe_and_change_no_hash():
    import_parts()
    data = {"steps": 3, "batch": 2}
    node, problems = resolve(Train, {**data, "loggers": ["wandb", {"type": "mlflow", "uri": "x"}]}, "train")
    assert not problems and node is not None
    assert [view.type_name for view in build(node).views] == ["tensorboard", "wandb", "mlflow"]
    plain, _ = resolve(Train, data, "train")
    assert plain is not None and plain.material() == node.material()
    assert [view.type_name for view in build(plain).views] == ["tensorboard"]
