"""Runs read back from their folders: as rows of data, and as networks that predict."""

import glob
import itertools
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

import lrajax
from lrajax import data, training
from lrajax.base import PyTree
from lrajax.runs import records, tables
from lrajax.runs.settings import Settings

CURVES = ("train_loss", "train_error", "valid_error", "test_error")


class Folder:
    """The folder of a run, read.

    Attributes:
      path: of the folder.
      name: what to call the run.
      config: what config.json says.
      settings: of the runs.
      curves: metrics.jsonl by name, [n_epochs, n_runs]; NaN for what is not finite.
      seconds: of every epoch, all runs together, [n_epochs].
      summary: what summary.json says; None as long as the run is not finished.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None):
        """Reads all but the parameters.

        Args:
          path: of the folder.
          name: what to call the run; default: the path.

        Raises:
          ValueError: the folder holds no run, no epoch of one, or a damaged file.
        """
        self.path = pathlib.Path(path)
        self.name = str(path) if name is None else name
        try:
            names = {"settings": records.SETTINGS}
            self.config = records.read_record(self.path / "config.json", names)
            self.settings = Settings(**self.config["settings"])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a run's folder ({error}): name one that `train --out_dir` wrote"
            ) from error
        try:
            content = (self.path / "metrics.jsonl").read_bytes()
            # The last line of a running or killed training may be cut.
            whole = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
            epochs = [json.loads(line) for line in whole]
            # One run gives numbers, several give lists; null is a number that does not exist.
            self.curves = {
                name: np.array([np.atleast_1d(epoch[name]) for epoch in epochs], float)
                for name in CURVES
            }
            self.seconds = [epoch["seconds"] for epoch in epochs]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self.path / 'metrics.jsonl'} is missing or damaged: delete summary.json there "
                "and give the train command again, which trains anew"
            ) from error
        if not epochs:
            raise ValueError(f"{path} has no finished epoch: wait for the first")
        summary = self.path / "summary.json"
        self.summary = records.read_record(summary, records.SUMMARY) if summary.exists() else None

    @property
    def rows(self) -> list[tables.Row]:
        """A row a setting."""
        return tables.rows(self.settings, self.summary, self.name)

    def dataset(self, data_dir: str | os.PathLike[str] | None = None) -> data.Dataset:
        """The data set of the runs, from `data_dir`, or else where they had it from.

        Raises:
          ValueError: it is not there, or damaged.
        """
        recorded = self.config.get("data_dir")
        there = recorded if recorded and pathlib.Path(recorded).is_dir() else None
        return data.load(
            self.settings.dataset,
            data_dir or there,
            valid_size=self.settings.valid_size,
            split_seed=self.settings.split_seed,
        )

    def params(self, run: int, like: PyTree) -> lrajax.Params:
        """The selected parameters of the run of that number, as `predict` takes them.

        Args:
          run: its number among `settings.runs()`.
          like: their shapes and dtypes.

        Raises:
          ValueError: best_params.npz is missing, damaged, or of another network.
        """
        path = self.path / "best_params.npz"

        def of_run(place, like):
            name = jax.tree_util.keystr(place, simple=True, separator="/")
            return arrays[name][run].astype(like.dtype)

        try:
            with np.load(path, allow_pickle=False) as arrays:
                return jax.tree_util.tree_map_with_path(of_run, like)
        except (OSError, ValueError, LookupError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is missing, damaged or of another network: run the same train command "
                "again with another --out_dir"
            ) from error


class Rows(NamedTuple):
    """Runs as tidy rows: dictionaries of plain values, which `pandas.DataFrame` takes.

    Attributes:
      runs: one a run: its `folder`, settings, hyperparameters and seed, and, if it is
        finished, the errors in % at its epoch of lowest validation error (`best_epoch`) and the
        epoch in which it diverged; None for what does not exist.
      epochs: one a run and epoch: settings and seed again, `epoch`, training loss in nats, errors
        in % and the seconds that the epoch took for all runs of the folder.
    """

    runs: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


class Loaded(NamedTuple):
    """A run to go on working with.

    Attributes:
      network: that was trained.
      algo: its rule, which predicts.
      params: the parameters of lowest validation error, as `algo.predict` takes them.
    """

    network: lrajax.Network
    algo: lrajax.Algorithm
    params: lrajax.Params


def find(*where: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The folders of runs at or below the places named, each once.

    Args:
      *where: folders of runs, folders above them, or patterns such as "runs/*"; a leading ~ is the
        home folder.

    Raises:
      ValueError: nothing is there, or no run anywhere.
    """
    found: dict[pathlib.Path, None] = {}
    for text in (os.path.expanduser(os.fspath(path)) for path in where):
        paths = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
        if not paths:
            raise ValueError(f"{text} does not exist: name a folder that `train --out_dir` wrote")
        found |= dict.fromkeys(itertools.chain.from_iterable(map(_below, paths)))
    if not found:
        raise ValueError(
            f"{', '.join(map(str, where))} is not a run's folder, nor above one: name one that "
            "`train --out_dir` wrote"
        )
    return list(found)


def _below(path: str) -> Iterator[pathlib.Path]:
    for folder, names, files in os.walk(path):
        names.sort()
        if "config.json" in files:
            yield pathlib.Path(folder)
            names.clear()  # what lies in a run's folder is its own


def read(*where: str | os.PathLike[str]) -> Rows:
    """Runs as rows of data, finished or not.

    Args:
      *where: see `find`.

    Raises:
      ValueError: there is no run, or a file of one is damaged.
    """
    rows = Rows([], [])
    for folder in map(Folder, find(*where)):
        for number, values in enumerate(folder.settings.runs()):
            about = {"folder": folder.name, **tables.about(folder.settings, values)}
            rows.runs.append({**about, **_result(folder.summary, number)})
            rows.epochs.extend({**about, **line} for line in _epochs(folder, number))
    return rows


def _result(summary: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
    names = ("best_epoch", "diverged_at", *records.ERRORS)
    return {name: summary[name][number] if summary else None for name in names}


def _epochs(folder: Folder, number: int) -> Iterator[dict[str, Any]]:
    """What was measured in every epoch of a run."""
    measured = {name: curve[:, number].tolist() for name, curve in folder.curves.items()}
    columns = {"seconds": folder.seconds, **measured}
    for epoch, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield {"epoch": epoch, **dict(zip(columns, values, strict=True))}


def load(
    folder: str | os.PathLike[str],
    seed: int | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    **values: float,
) -> Loaded:
    """A finished run's network, rule and selected parameters.

    Args:
      folder: of the run.
      seed: of the run; default: the first.
      data_dir: where the data set is, as in `data.load`. It is looked at only if config.json does
        not say what shape the images have, as it did not before version 0.1.
      **values: of a sweep, the values that are meant: `load("runs/sweep", lr=0.01, beta=0.1)`.

    Raises:
      ValueError: there is no such run, or its files are missing or damaged.
    """
    read = Folder(os.path.expanduser(os.fspath(folder)))
    wanted = {**({} if seed is None else {"seed": seed}), **values}
    runs = read.settings.runs()
    found = [i for i, run in enumerate(runs) if wanted.items() <= run.items()]
    if not found or len({tuple(read.settings.swept(runs[i]).values()) for i in found}) > 1:
        choice = {"seed": read.settings.seeds, **read.settings.sweep}
        raise ValueError(
            f"{folder} has no one run of {wanted}: give "
            + ", ".join(f"{name}= one of {[*of]}" for name, of in choice.items())
        )
    shape = shape_of(read, data_dir)
    algo = read.settings.make_algorithm(*shape, read.settings.swept(runs[found[0]]))
    like = jax.eval_shape(lambda: start(algo, jax.random.key(0), 1))
    params = jax.tree.map(jax.numpy.asarray, read.params(found[0], like))
    return Loaded(read.settings.make_network(*shape), algo, params)


def shape_of(folder: Folder, data_dir: Any = None) -> tuple[tuple[int, ...], int]:
    """The shape of a run's images and the number of classes."""
    if "image_shape" in folder.config:
        return tuple(folder.config["image_shape"]), folder.config["num_classes"]
    dataset = folder.dataset(data_dir)
    return dataset.image_shape, dataset.num_classes


def start(algo: lrajax.Algorithm, key: PRNGKeyArray, num_examples: int) -> lrajax.Params:
    """The parameters that a run began with, as `predict` takes them, from its seed's key."""
    return training.to_predict(training.init_state(algo, optax.identity(), key, num_examples))
