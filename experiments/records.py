"""The files of a run: config.json, metrics.jsonl, summary.json, best_params.npz."""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from typing import Any

import jax
import numpy as np
from runs import Epoch, Settings

import lrajax
from lrajax.training import Best


def config(settings: Settings) -> dict[str, Any]:
    """Every setting and version, ready for JSON."""
    packages = ("lrajax", "jax", "jaxlib", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "settings": _plain(dataclasses.asdict(settings)),
        "versions": {"python": platform.python_version(), **versions},
        "device": jax.devices()[0].device_kind,
    }


def epoch_line(epoch: Epoch) -> dict[str, Any]:
    """One line of metrics.jsonl: errors in %; lists over the seeds if there are several."""
    metrics = epoch.metrics
    values = {
        "train_loss": metrics.train.loss,
        "train_error": metrics.train.error,
        "valid_error": metrics.valid.error,
        "test_error": metrics.test.error,
    }
    return {
        "epoch": epoch.number,
        **{name: _list(value, squeeze=True) for name, value in values.items()},
        "seconds": round(epoch.seconds, 4),
        "examples_per_second": round(epoch.examples_per_second),
    }


def summary(settings: Settings, best: Best, train_error: np.ndarray) -> dict[str, Any]:
    """Errors in % at each run's epoch of lowest validation error; over seeds, mean and spread.

    Args:
      settings: the settings.
      best: the early-stopped selection of all runs, on the host.
      train_error: of the selected parameters over the whole training set, [n_runs].
    """
    errors = {
        "train_error": train_error,
        "valid_error": best.valid_error,
        "test_error": best.test_error,
    }
    statistics = {}
    for name, values in errors.items():
        statistics[name] = _list(values)
        if settings.sweep:
            continue  # a mean over different settings says nothing
        statistics[f"{name}_mean"] = _finite(np.mean(values))
        # The sample's standard deviation; a single seed has none.
        statistics[f"{name}_std"] = _finite(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "algo": settings.algo,
        "opt": settings.opt,
        "dataset": settings.dataset,
        "hidden_layers": settings.hidden_layers,
        "seeds": list(settings.seeds),
        "runs": settings.runs(),
        "best_epoch": best.epoch.tolist(),
        **statistics,
    }


class RunFolder:
    """Writes a run's files under `--out_dir`."""

    def __init__(self, path: str, settings: Settings):
        """Looks without touching; raises ValueError if another or a finished run is there."""
        self.path = pathlib.Path(path)
        self.config = config(settings)
        existing = self.path / "config.json"
        if existing.exists():
            self._check_same(json.loads(existing.read_text()), self.config)

    def create(self) -> None:
        """Makes the folder, or raises ValueError if it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "config.json", self.config)
            (self.path / "metrics.jsonl").write_text("")
        except OSError as error:
            raise ValueError(
                f"out_dir={self.path} cannot be written ({error.strerror}): choose another folder"
            ) from error

    def _check_same(self, theirs: dict, mine: dict) -> None:
        if theirs["settings"] != mine["settings"]:
            names = sorted(
                name
                for name in mine["settings"]
                if theirs["settings"].get(name) != mine["settings"][name]
            )
            raise ValueError(
                f"out_dir={self.path} already holds a different run ({', '.join(names)} differ): "
                "choose another folder, or delete that one"
            )
        if (self.path / "summary.json").exists():
            raise ValueError(
                f"out_dir={self.path} already holds this run, finished: read its summary.json, "
                "or delete the folder to run it again"
            )

    def write_epoch(self, epoch: Epoch) -> None:
        """Appends a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(epoch_line(epoch)) + "\n")

    def write_result(self, result: dict[str, Any], best_params: lrajax.Params) -> None:
        """Writes best_params.npz, then summary.json, whose presence says that the run is done."""
        names_and_leaves = jax.tree_util.tree_leaves_with_path(best_params)
        arrays = {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in names_and_leaves
        }
        np.savez(self.path / "best_params.npz", **arrays)
        write_json(self.path / "summary.json", result)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def _finite(value) -> float | None:
    # JSON has no NaN: a number that does not exist is null.
    return round(float(value), 6) if math.isfinite(value) else None


def _list(values, squeeze: bool = False):
    numbers = [_finite(value) for value in np.asarray(values)]
    return numbers[0] if squeeze and len(numbers) == 1 else numbers


def _plain(tree):
    return json.loads(json.dumps(tree))
