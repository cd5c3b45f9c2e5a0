"""What trackers are told of a training: TensorBoard, W&B, MLflow, and one that fails."""

import struct

import numpy as np
import pytest

from lrajax.runs import presets, trackers
from lrajax.runs.commands import train
from lrajax.runs.experiment import Epoch
from lrajax.training import EpochMetrics, Metrics

SETTINGS = presets.resolve("lra_e", seeds=(3, 4), sweep={"beta": (0.1, 0.2)})


def epoch(number):
    """An epoch of four runs with a validation error of `number` + run / 10, the last diverged."""
    values = number + np.array([0.0, 0.1, 0.2, np.nan])
    metrics = EpochMetrics(*[Metrics(values, values)] * 3)
    return Epoch(number, None, metrics, np.zeros(4, int), [None] * 4, 1.0, 1.0)


def track(tracker, folder, numbers, done=0):
    said = []
    tracked = trackers.Trackers({tracker: folder}, SETTINGS, "mine", done, said.append)
    for number in numbers:
        tracked.write(epoch(number))
    tracked.close()
    return said


def read_tensorboard(folder):
    """{epoch: validation error}, later records before earlier; length, CRC, an Event, CRC each."""
    from tensorboardX.proto.event_pb2 import Event

    values = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            event = Event.FromString(raw[12 : 12 + length])
            if event.HasField("session_log"):  # TensorBoard forgets what comes after
                values = {step: value for step, value in values.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "valid_error":
                    values[event.step] = pytest.approx(value.simple_value, rel=1e-6)
            raw = raw[16 + length :]
    return values


def test_every_run_is_told_of_its_own_numbers(monkeypatch):
    """Beside its settings; what is not finite is left out, for a curve ends there."""
    opened, told, closed = {}, [], []

    def fake(folder, name, config, done):
        opened[name] = (str(folder), config["seed"], config["beta"], config["gamma"], done)
        return trackers.Writer(
            lambda number, values: told.append((name, number, values.get("valid_error"))),
            lambda: closed.append(name),
        )

    monkeypatch.setitem(trackers.TRACKERS, "fake", ("json", fake))
    assert track("fake", "here", [6], done=5) == []
    names = ["mine_beta=0.1_seed=3", "mine_beta=0.2_seed=3"]
    names += ["mine_beta=0.1_seed=4", "mine_beta=0.2_seed=4"]
    seeds_and_betas = [(3, 0.1), (3, 0.2), (4, 0.1), (4, 0.2)]
    assert opened == {
        name: ("here", *pair, 1.0, 5) for name, pair in zip(names, seeds_and_betas, strict=True)
    }
    assert told == list(zip(names, [6] * 4, [6.0, 6.1, 6.2, None], strict=True))
    assert closed == names


def test_a_training_outlives_a_tracker_that_fails(monkeypatch):
    def failing(number, values):
        raise RuntimeError("out of luck")

    writer = trackers.Writer(failing, lambda: pytest.fail("it was given up"))
    monkeypatch.setitem(trackers.TRACKERS, "fake", ("json", lambda *_: writer))
    assert track("fake", "here", [1, 2]) == [
        "--fake fails (out of luck): training goes on without it"
    ]


def test_tensorboard_forgets_the_epochs_that_are_trained_again(tmp_path):
    track("tensorboard", tmp_path, [1, 2, 3])
    track("tensorboard", tmp_path, [2], done=1)
    assert read_tensorboard(tmp_path / "mine_beta=0.2_seed=3") == {1: 1.1, 2: 2.1}


@pytest.mark.filterwarnings("ignore")  # of others' packages
def test_mlflow_goes_on_with_its_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    track("mlflow", tmp_path, [1])
    track("mlflow", tmp_path, [2], done=1)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("lrajax").experiment_id])
    assert len(runs) == 4
    (one,) = [run for run in runs if run.info.run_name == "mine_beta=0.2_seed=3"]
    history = client.get_metric_history(one.info.run_id, "valid_error")
    assert [(point.step, point.value) for point in history] == [(1, 1.1), (2, 2.1)]
    assert one.data.params["beta"] == "0.2"


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_that_goes_on_under_its_id(tmp_path):
    pytest.importorskip("wandb")
    track("wandb", tmp_path, [1])
    track("wandb", tmp_path, [2], done=1)
    identity = (tmp_path / "mine_beta=0.2_seed=3.id").read_text()
    assert len([*tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")]) == 2
    assert len([*tmp_path.glob("wandb/offline-run-*")]) == 8


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--tensorboard=/proc/nowhere", "choose another folder"),
        ("--wandb=here", "pip install no_such_package"),
    ],
)
def test_a_tracker_that_cannot_be_opened_is_named(flag, words, monkeypatch, capsys):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("no_such_package", None))
    with pytest.raises(SystemExit) as left:
        train.run(["train.py", "--width=8", "--hidden_layers=1", flag])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag in line
    assert words in line
