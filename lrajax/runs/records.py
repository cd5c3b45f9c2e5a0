"""What is recorded of runs: settings and versions, a line an epoch, the summary and its table."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import pathlib
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import lrajax
from lrajax import checkpoint
from lrajax.runs.experiment import Epoch
from lrajax.runs.settings import Settings, defaults
from lrajax.training import Best

ERRORS = ("train_error", "valid_error", "test_error")
# What readers of a file count on: names, and of what holds names in turn, theirs.
SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Settings)
    if field.default is field.default_factory is dataclasses.MISSING
)
SUMMARY = ("seeds", "runs", "best_epoch", "diverged_at", *ERRORS)
CELL = {"settings": SETTINGS, "summary": SUMMARY, "curves": (), "final": ()}

Names = Mapping[str, Any] | Sequence[str]


def config(settings: Settings) -> dict[str, Any]:
    """Every setting, version and commit, ready for JSON."""
    return {"settings": _plain(dataclasses.asdict(settings)), **versions()}


def versions() -> dict[str, Any]:
    """What the numbers were computed with."""
    packages = ("jax", "jaxlib", "optax", "numpy")
    # A checkout need not be installed.
    found = {"lrajax": lrajax.__version__}
    found |= {name: importlib.metadata.version(name) for name in packages}
    return {
        "versions": {"python": platform.python_version(), **found},
        "device": jax.devices()[0].device_kind,
        "commit": commit(),
    }


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that runs, with a plus if files of it have changed.

    Else the one that pip installed from a repository, or None.
    """
    here = pathlib.Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here.parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an environment may lie in another checkout
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):
        return _installed_commit(here)


def _installed_commit(here: pathlib.Path) -> str | None:
    """The commit that a package was installed from, if it is the one that runs; else None."""
    try:
        installed = importlib.metadata.distribution("lrajax")
    except importlib.metadata.PackageNotFoundError:
        return None
    if pathlib.Path(str(installed.locate_file("lrajax"))) not in here.parents:
        return None
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    return origin.get("vcs_info", {}).get("commit_id")


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
        **{name: _squeezed(rounded(value, 6)) for name, value in values.items()},
        "seconds": round(epoch.seconds, 4),
        "examples_per_second": round(epoch.examples_per_second),
    }


def curves(lines: list[dict[str, Any]]) -> dict[str, list[list]]:
    """What lines of metrics.jsonl measured, by name: lists over the epochs, then over the seeds."""
    others = {"epoch", "seconds", "examples_per_second"}
    return {
        name: [line[name] if isinstance(line[name], list) else [line[name]] for line in lines]
        for name in lines[0]
        if name not in others
    }


def progress(epoch: Epoch) -> str:
    """What the progress bar says: means over the runs that have not diverged."""
    alive = epoch.diverged_at == 0
    if not alive.any():
        return "diverged"
    return (
        f"loss {epoch.metrics.train.loss[alive].mean():.4f}, "
        f"valid {epoch.metrics.valid.error[alive].mean():.2f} %, "
        f"{epoch.examples_per_second:,.0f} examples/s"
    )


def divergences(settings: Settings, epoch: Epoch) -> Iterator[str]:
    """A line for each run that diverged in this epoch."""
    for i, run in enumerate(settings.runs()):
        if epoch.diverged_at[i] == epoch.number:
            name = ", ".join(f"{key} {value:g}" for key, value in run.items())
            where = f", first in {epoch.culprits[i]}" if epoch.culprits[i] else ""
            yield f"{name} diverged in epoch {epoch.number}: a number is not finite{where}"


def summary(
    settings: Settings, best: Best, train_error: np.ndarray, diverged_at: np.ndarray
) -> dict[str, Any]:
    """Errors in % at each run's epoch of lowest validation error; over seeds, mean and spread.

    A run that diverged in its first epoch has no such epoch: all of its entries are None.

    Args:
      settings: the settings.
      best: the early-stopped selection of all runs, on the host.
      train_error: of the selected parameters over the whole training set, [n_runs].
      diverged_at: the first epoch that left a non-finite number, [n_runs]; 0 for none.
    """
    selected = np.asarray(best.epoch) > 0
    measured = {
        "train_error": train_error,
        "valid_error": best.valid_error,
        "test_error": best.test_error,
    }
    errors = {
        name: rounded(np.where(selected, np.asarray(value), np.nan), 6)
        for name, value in measured.items()
    }
    # A mean over different settings says nothing.
    statistics = {} if settings.sweep else _statistics(errors)
    return {
        "algo": settings.algo,
        "opt": settings.opt,
        "dataset": settings.dataset,
        "network": settings.network,
        "hidden_layers": settings.hidden_layers,
        "seeds": list(settings.seeds),
        "runs": settings.runs(),
        "best_epoch": [epoch or None for epoch in best.epoch.tolist()],
        "diverged_at": [epoch or None for epoch in diverged_at.tolist()],
        **errors,
        **statistics,
    }


def _statistics(errors: dict[str, list]) -> dict[str, float | None]:
    """Mean of every error over the seeds, and the sample's deviation, None for one seed."""
    found = {}
    for name, values in errors.items():
        found[f"{name}_mean"], found[f"{name}_std"] = moments(values)
    return found


def moments(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and the sample's standard deviation; None where there is none."""
    numbers = np.array(values, float)
    std = rounded(np.std(numbers, ddof=1), 6) if len(values) > 1 else None
    return rounded(np.mean(numbers), 6), std


def groups(
    runs: Sequence[Mapping[str, float]],
) -> list[tuple[dict[str, float], list[int]]]:
    """The swept values of every setting, ascending, with the numbers of its runs, one a seed.

    Args:
      runs: seed and swept values of each, as `Settings.runs` gives them.
    """
    found: dict[tuple, list[int]] = {}
    for number, run in enumerate(runs):
        values = tuple((name, value) for name, value in run.items() if name != "seed")
        found.setdefault(values, []).append(number)
    return [(dict(values), found[values]) for values in sorted(found)]


def seeds_in_words(count: int) -> str:
    """1 seed, 2 seeds."""
    return f"{count} seed{'s' * (count > 1)}"


def extent(record: Mapping[str, Any]) -> str:
    """How much a cell was trained: 5 seeds, 20 epochs."""
    settings = record["settings"]
    return f"{seeds_in_words(len(settings['seeds']))}, {settings['epochs']} epochs"


def joined_summary(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One summary of runs that were trained apart and differ in nothing but their seeds."""
    joined = {
        name: concatenated([summary[name] for summary in summaries])
        if isinstance(value, list)
        else value
        for name, value in summaries[0].items()
    }
    return joined | _statistics({name: joined[name] for name in ERRORS})


def concatenated(trees: Sequence[Any]) -> Any:
    """Lists one after another, in dictionaries of any depth; anything else once, if all agree.

    Raises:
      ValueError: what is no list differs, or names do.
    """
    if isinstance(trees[0], dict) and all(tree.keys() == trees[0].keys() for tree in trees):
        return {name: concatenated([tree[name] for tree in trees]) for name in trees[0]}
    if isinstance(trees[0], list):
        return list(itertools.chain(*trees))
    if any(tree != trees[0] for tree in trees):
        raise ValueError(f"{trees} must agree to be recorded as one")
    return trees[0]


def table(result: Mapping[str, Any]) -> str:
    """The summary as a short table, a line for each run."""
    names = list(result["runs"][0])
    lines = [[*names, "epoch", "train %", "valid %", "test %"]]
    for i, run in enumerate(result["runs"]):
        numbers = [_cell(result[name][i]) for name in ERRORS]
        epoch = _cell(result["best_epoch"][i], "d")
        lines.append([*[f"{run[name]:g}" for name in names], epoch, *numbers])
    if len(names) == 1 and len(result["runs"]) > 1:
        for statistic in ("mean", "std"):
            lines.append(
                [statistic, "", *[_cell(result[f"{name}_{statistic}"]) for name in ERRORS]]
            )
    return "\n".join("".join(f" {cell:>8}" for cell in line) for line in lines)


def _cell(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    checkpoint.write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def usable(name: str, path: str | pathlib.Path) -> Iterator[None]:
    """Turns a failure at a folder or a file into a line that names the flag it came from.

    Raises:
      ValueError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{name}={path} cannot be used ({error.strerror}): choose another folder"
        ) from error


def check_writable(name: str, folder: str | pathlib.Path, within: str = "") -> pathlib.Path:
    """Makes the folder, and one within it; ValueError that names the flag if it cannot keep files.

    Returns:
      Where files can be kept.
    """
    kept = pathlib.Path(folder, within)
    with usable(name, folder):
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept) as file:
            file.write(b"0")
    return kept


def read_json(path: pathlib.Path) -> Any:
    """Reads JSON.

    Raises:
      ValueError: the file cannot be read, or is damaged; the message names it.
    """
    with _naming(path):
        return json.loads(path.read_text())


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged, no JSON: bring it back, or delete it") from error


def read_record(path: pathlib.Path, names: Names) -> dict[str, Any]:
    """Reads JSON that holds these names.

    Raises:
      ValueError: the file cannot be read, or holds something else; the message names it.
    """
    return holding(path, read_json(path), names)


def read_lines(path: pathlib.Path, names: Names) -> list[dict[str, Any]]:
    """Reads a file of JSON by the line, each of which holds these names.

    Raises:
      ValueError: see `read_record`.
    """
    with _naming(path):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [holding(path, line, names) for line in lines]


def holding(path: pathlib.Path, record: Any, names: Names) -> dict[str, Any]:
    """The record if it holds these names; else ValueError that names the file it is from."""
    if not _holds(record, names):
        raise ValueError(f"{path} is not what was written there: bring it back, or delete it")
    return record


def _holds(value: Any, names: Names | None) -> bool:
    if names is None:
        return True
    inner = names if isinstance(names, Mapping) else dict.fromkeys(names)
    return isinstance(value, dict) and all(
        name in value and _holds(value[name], inner[name]) for name in inner
    )


def recorded(
    path: pathlib.Path, mine: dict[str, Any], names: Names, but: Sequence[str] = ()
) -> dict | None:
    """What the file of a result says, OUT_DIR/TARGET/NAME.json; None if there is no file.

    Args:
      path: of the file.
      mine: the settings that it should have been made with.
      names: what it must hold besides, as `read_record` takes it.
      but: names of settings that may differ.

    Raises:
      ValueError: it was made with other settings, or is no such file.
    """
    if not path.exists():
        return None
    record = read_record(path, names)
    names = [name for name in differing(record["settings"], mine) if name not in but]
    if names:
        raise ValueError(
            f"out_dir={path.parents[1]}: {path} was made with other settings ({', '.join(names)} "
            "differ): delete it to train anew, or choose another folder"
        )
    return record


def differing(theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """The names of settings that differ."""
    theirs, mine = _completed(theirs), {**mine, **_hyperparameters(mine)}
    return sorted(name for name, value in mine.items() if theirs.get(name) != value)


def optimizer_of(settings: Mapping[str, Any]) -> str:
    """The optimiser in words, with the schedule and the weight decay where there are any."""
    settings = _completed(settings)
    parts = [settings["opt"]]
    if settings["schedule"] != "constant":
        parts.append(settings["schedule"])
    if settings["weight_decay"]:
        parts.append(f"decay {settings['weight_decay']:g}")
    return ", ".join(parts)


def _completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A file's settings, with the defaults of those that are younger than the file."""
    fields = {
        field.name: field.default
        for field in dataclasses.fields(Settings)
        if field.default is not dataclasses.MISSING
    }
    return {**_plain(fields), **settings, **_hyperparameters(settings)}


def _hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of some settings in full, where there is a rule."""
    algo = settings.get("algo")
    if algo not in lrajax.RULES:
        return {}
    return {"hyperparameters": {**defaults(algo), **settings.get("hyperparameters", {})}}


def rounded(values: Any, decimals: int = 4) -> Any:
    """An array as nested lists, None for what is not finite: JSON has no NaN."""
    numbers = np.round(np.asarray(values, np.float64), decimals)
    return np.where(np.isfinite(numbers), numbers.astype(object), np.array(None)).tolist()


def _squeezed(numbers: list) -> Any:
    return numbers[0] if len(numbers) == 1 else numbers


def _plain(tree):
    return json.loads(json.dumps(tree))
