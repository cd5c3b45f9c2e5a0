"""Where the curves of a training go besides metrics.jsonl: TensorBoard, W&B, MLflow.

A tracker is a function that opens one run of it, `(folder, name, config, done) -> Writer`; what has
several seeds, or swept values, is several runs. Packages are imported when a tracker is asked for.
"""

import importlib.util
import json
import os
import pathlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lrajax.runs import records
from lrajax.runs.experiment import Epoch
from lrajax.runs.settings import Settings


class Writer(NamedTuple):
    """One run in a tracker.

    Attributes:
      write: `(epoch, values)`, what was measured of the run in an epoch, by name.
      close: `()`, the end of the run.
    """

    write: Callable[[int, Mapping[str, float]], Any]
    close: Callable[[], Any]


def tensorboard(folder: pathlib.Path, name: str, config: Mapping[str, Any], done: int) -> Writer:
    """Event files in a folder of the run's name, without TensorFlow."""
    from tensorboardX import SummaryWriter

    # TensorBoard forgets what an earlier process wrote of epochs that are trained again.
    run = SummaryWriter(str(folder / name), purge_step=done + 1, filename_suffix=f".{done}")
    run.add_text("config", f"```\n{json.dumps(config, indent=2)}\n```")

    def write(epoch, values):
        for key, value in values.items():
            run.add_scalar(key, value, epoch)
        run.flush()

    return Writer(write, run.close)


def wandb(folder: pathlib.Path, name: str, config: Mapping[str, Any], done: int) -> Writer:
    """W&B's own files, which `wandb sync` sends; WANDB_MODE=online sends them while training."""
    import wandb as wb

    folder.mkdir(parents=True, exist_ok=True)
    identity = folder / f"{name}.id"  # W&B knows a run that goes on by its id alone
    if not (done and identity.exists()):
        identity.write_text(secrets.token_hex(4))
    run = wb.init(
        project=os.environ.get("WANDB_PROJECT", "lrajax"),
        name=name,
        id=identity.read_text(),
        config=dict(config),
        dir=folder,
        mode=os.environ.get("WANDB_MODE", "offline"),
        resume="allow",
        reinit="create_new",  # several runs at once
        settings=wb.Settings(silent=True, console="off"),
    )
    return Writer(lambda epoch, values: run.log(dict(values), step=epoch), run.finish)


def mlflow(folder: pathlib.Path, name: str, config: Mapping[str, Any], done: int) -> Writer:
    """MLflow's local store: `mlflow ui --backend-store-uri=sqlite:///FOLDER/mlflow.db`."""
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(f"sqlite:///{folder.absolute()}/mlflow.db")
    found = client.get_experiment_by_name("lrajax")
    experiment = found.experiment_id if found else client.create_experiment("lrajax")
    mine = f"attributes.run_name = '{name}'"
    runs = client.search_runs([experiment], mine, max_results=1) if done else []
    run = (runs or [client.create_run(experiment, run_name=name)])[0].info.run_id
    for key, value in config.items() if not runs else ():
        client.log_param(run, key, value)

    def write(epoch, values):
        for key, value in values.items():
            client.log_metric(run, key, value, step=epoch)

    return Writer(write, lambda: client.set_terminated(run))


# The package that each needs, and what opens a run of it.
TRACKERS: dict[str, tuple[str, Callable[..., Writer]]] = {
    "tensorboard": ("tensorboardX", tensorboard),
    "wandb": ("wandb", wandb),
    "mlflow": ("mlflow", mlflow),
}


def check(folders: Mapping[str, str | pathlib.Path]) -> None:
    """Raises ValueError if the package of a tracker that is asked for is not installed."""
    for tracker, folder in folders.items():
        package, _ = TRACKERS[tracker]
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"{tracker}={folder} needs {package}: pip install {package}")


class Trackers:
    """The trackers of a training, each with a writer for every run."""

    def __init__(
        self,
        folders: Mapping[str, str],
        settings: Settings,
        title: str,
        done: int,
        say: Callable[[str], None],
    ):
        """Opens them.

        Args:
          folders: where each tracker keeps its files, by its name in `TRACKERS`.
          settings: of the runs.
          title: what the training is called; swept values and seed are added for each run.
          done: epochs that were trained before, by another process.
          say: tells the user, in a line.

        Raises:
          ValueError: one cannot be opened; the message says why.
        """
        self._say = say
        self._writers: dict[str, list[Writer]] = {}
        for tracker, path in folders.items():
            _, opened = TRACKERS[tracker]
            try:
                self._writers[tracker] = [
                    opened(pathlib.Path(path), _name(title, run), _config(settings, run), done)
                    for run in settings.runs()
                ]
            except Exception as error:  # a tracker may fail by any exception of its own
                raise ValueError(
                    f"{tracker}={path} cannot be opened ({error}): choose another folder, or train "
                    "without"
                ) from error

    def write(self, epoch: Epoch) -> None:
        """Hands an epoch to all writers; what is not finite is left out."""
        curves = records.curves([records.epoch_line(epoch)])
        for tracker in list(self._writers):
            self._surviving(tracker, lambda writer, i: writer.write(epoch.number, _of(curves, i)))

    def close(self) -> None:
        """Ends all runs."""
        for tracker in list(self._writers):
            self._surviving(tracker, lambda writer, _: writer.close())

    def _surviving(self, tracker: str, act: Callable[[Writer, int], Any]) -> None:
        """Lets a training go on without a tracker that fails, by whatever exception."""
        try:
            for i, writer in enumerate(self._writers[tracker]):
                act(writer, i)
        except Exception as error:
            del self._writers[tracker]
            self._say(f"--{tracker} fails ({error}): training goes on without it")


def _of(curves: Mapping[str, list[list]], run: int) -> dict[str, float]:
    values = {name: curve[0][run] for name, curve in curves.items()}
    return {name: value for name, value in values.items() if value is not None}


def _name(title: str, run: Mapping[str, float]) -> str:
    """The title with swept values and seed: lra_e_beta=0.1_seed=0."""
    values = {name: value for name, value in run.items() if name != "seed"}
    return "_".join([title, *(f"{k}={v:g}" for k, v in [*values.items(), ("seed", run["seed"])])])


def _config(settings: Settings, run: Mapping[str, float]) -> dict[str, Any]:
    """The settings of one run, with its own values in place of the swept ones, and versions."""
    fields = {**records.config(settings)["settings"], **run}
    for name in ("seeds", "sweep"):
        fields.pop(name)
    return {**fields.pop("hyperparameters"), **fields}
