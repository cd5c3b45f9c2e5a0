"""The comparison of docs/protocol.md: a rule's entry for a task, and where the entries stand.

An entry is made of a search, the chosen settings trained anew with fresh seeds, and the rule's card
before and after training. Everything is kept in the folder of the rule as it comes, so that what
was cut off goes on.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import lrajax
from lrajax import checkpoint, data
from lrajax.runs import named, presets, records, statistics, tuning
from lrajax.runs.experiment import Experiment
from lrajax.runs.settings import Settings

FIRST_SEED = 1000  # of the final runs; a search counts its trials from 0
REFERENCE = "backprop"
ENTRY, FINALS = "entry.json", "finals.jsonl"
# What the page counts on, see `records.read_record`.
COSTS = ("products_over_backprop", "depth", "memory_over_backprop")
ANGLES = ("angles", "feedback_angles")
CARDS = dict.fromkeys(("start", "trained"), (*COSTS, *ANGLES))
RUN = ("seconds", *records.ERRORS)
NUMBERS = ("trials", "seconds_searched", "valid_error_searched", "classes")
NAMES = {
    **dict.fromkeys(("rule", "title", "task", *NUMBERS, "runs", "device")),
    "settings": ("opt", "lr", "epochs"),
    "cards": CARDS,
}


class Standing(NamedTuple):
    """Where a rule stands on a task.

    Attributes:
      entry: its file.
      errors: test error in % of every fresh seed; at chance where a run has none.
      interval: 95 % of their mean.
      against: the comparison with tuned backprop; None for backprop, or where that is missing.
    """

    entry: Mapping[str, Any]
    errors: tuple[float, ...]
    interval: tuple[float, float]
    against: statistics.Comparison | None

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return float(np.mean(self.errors))


def folder_of(root: pathlib.Path, task: str, algo: str) -> pathlib.Path:
    """Where a rule's search, runs and entry for a task are."""
    return root / task / algo.replace(":", ".")


def enter(
    algo: str,
    task: str,
    root: pathlib.Path,
    load: Callable[..., data.Dataset],
    *,
    trials: int,
    workers: int = 1,
) -> dict[str, Any]:
    """A rule's entry for a task: what is there of it is not done again.

    Args:
      algo: a key of `lrajax.RULES`, or MODULE:FUNCTION.
      task: a key of `tuning.TASKS`.
      root: the folder of the comparison.
      load: `(name, *, valid_size, split_seed) -> Dataset`.
      trials: of the search.
      workers: trials that train side by side.

    Raises:
      InUseError: another process makes this entry.
      ValueError: what is there is of another protocol or budget, or the folder cannot be used.
    """
    folder = folder_of(root, task, algo)
    if (folder / ENTRY).exists():
        entry = read(folder / ENTRY)
        _same_budget(folder / ENTRY, entry["trials"], trials)
        return entry
    fields = dict(tuning.TASKS[task].fields)
    dataset = load(fields["dataset"], valid_size=fields.get("valid_size"), split_seed=0)
    search = tuning.Search(algo, dataset, fields, folder, workers=workers)
    with contextlib.closing(search):
        done = len(search.ended)
        if done > trials:
            _same_budget(folder, done, trials)
        if done < trials and (folder / FINALS).exists():
            raise ValueError(
                f"{folder / FINALS} is of what a whole search chose, and here are {done} trials of "
                f"{trials}: delete it, and the final runs are made anew"
            )
        with tqdm(initial=done, total=trials, unit="trial", desc=algo, leave=False) as bar:
            search.follow(bar, trials)
        chosen = search.preset()
        settings = presets.resolve(**chosen["settings"])
        runs = list(final_runs(settings, tuning.TASKS[task].final_seeds, folder, load))
        entry = {
            "rule": algo,
            "title": search.rule.title,
            "task": task,
            "protocol": tuning.PROTOCOL,
            "trials": trials,
            "epochs_searched": chosen["epochs_searched"],
            "seconds_searched": round(sum(t.user_attrs["line"]["seconds"] for t in search.ended)),
            "valid_error_searched": chosen["valid_error"],
            "classes": dataset.num_classes,
            "cards": runs[0].pop("cards"),
            "runs": runs,
            **records.config(settings),
        }
        records.write_json(folder / ENTRY, entry)
    return entry


def _same_budget(path: pathlib.Path, theirs: int, trials: int) -> None:
    if theirs != trials:
        raise ValueError(
            f"trials={trials}: {path} has {theirs}, and all rules of a task have the same: ask for "
            "as many, or choose another folder"
        )


def final_runs(
    settings: Settings, count: int, folder: pathlib.Path, load: Callable[..., data.Dataset]
) -> Iterator[dict[str, Any]]:
    """The chosen settings with fresh seeds, each with a validation split of its own."""
    path = folder / FINALS
    lines = records.read_lines(path, RUN) if path.exists() else []
    if lines:
        records.holding(path, lines[0], {"cards": CARDS})
    yield from lines
    seeds = range(FIRST_SEED + len(lines), FIRST_SEED + count)
    for seed in tqdm(seeds, initial=len(lines), total=count, unit="seed", leave=False):
        dataset = load(settings.dataset, valid_size=settings.valid_size, split_seed=seed)
        mine = dataclasses.replace(settings, seeds=(seed,), split_seed=seed)
        lines.append(final_run(mine, dataset, with_cards=seed == FIRST_SEED))
        checkpoint.write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        yield lines[-1]


def final_run(settings: Settings, dataset: data.Dataset, with_cards: bool) -> dict[str, Any]:
    """One run, at its epoch of lowest validation error."""
    experiment = Experiment(settings, dataset, num_devices=1)
    seconds = []
    for epoch in experiment.epochs():
        seconds.append(epoch.seconds)
    best, diverged_at = experiment.on_host((epoch.run.best, epoch.run.diverged_at))
    summary = records.summary(settings, best, experiment.train_error(best.params), diverged_at)
    line: dict[str, Any] = {"seed": settings.seeds[0], "seconds": round(sum(seconds), 2)}
    line |= {name: summary[name][0] for name in (*records.ERRORS, "best_epoch", "diverged_at")}
    if with_cards:
        line["cards"] = cards(settings, experiment, best.params)
    return line


def cards(
    settings: Settings, experiment: Experiment, trained: lrajax.Params
) -> dict[str, dict[str, Any]]:
    """The rule's card on the task's network, with initial and with trained parameters."""
    network = settings.make_network(*experiment.shape)
    factory = named.rule(settings.algo).factory
    starts = {"start": None, "trained": jax.tree.map(lambda leaf: leaf[0], trained)}
    return {
        name: _plain(lrajax.audit(factory, network, params=params, **settings.hyperparameters))
        for name, params in starts.items()
    }


def _plain(card: lrajax.Card) -> dict[str, Any]:
    """What of a card depends on the network, ready for JSON: costs and angles, NaN as None.

    What a rule needs does not, and is measured where that is quick, on small networks
    (docs/api/cards.md).
    """
    return {name: getattr(card, name) for name in COSTS} | {
        name: records.rounded(getattr(card, name), 2) for name in ANGLES
    }


def read(path: pathlib.Path) -> dict[str, Any]:
    """An entry.

    Raises:
      ValueError: it is no entry, or was made under another version of the protocol.
    """
    entry = records.read_record(path, ("protocol",))
    if entry["protocol"] != tuning.PROTOCOL:
        raise ValueError(
            f"{path} was made under version {entry['protocol']} of the protocol, this is "
            f"{tuning.PROTOCOL}: delete its folder to make it anew"
        )
    records.holding(path, entry, NAMES)
    for run in entry["runs"]:
        records.holding(path, run, RUN)
    return entry


def standings(root: pathlib.Path) -> dict[str, list[Standing]]:
    """The rules of every task that has entries, best first.

    Raises:
      ValueError: see `read`; or rules of a task that had different budgets.
    """
    found = {}
    for task in tuning.TASKS:
        entries = [read(path) for path in sorted((root / task).glob(f"*/{ENTRY}"))]
        if entries:
            found[task] = sorted(_standing(entries), key=lambda standing: standing.error)
    return found


def _standing(entries: Sequence[Mapping[str, Any]]) -> list[Standing]:
    """The rules of one task."""
    budgets = {
        (entry["trials"], len(entry["runs"]), entry["settings"]["epochs"]) for entry in entries
    }
    if len(budgets) > 1:
        raise ValueError(
            f"rules of {entries[0]['task']} have different numbers of trials, seeds and epochs, "
            f"{sorted(budgets)}: give all of them the same"
        )
    errors = {entry["rule"]: _errors(entry) for entry in entries}
    against = statistics.compare(errors, REFERENCE) if REFERENCE in errors else {}
    return [
        Standing(
            entry,
            tuple(errors[entry["rule"]]),
            statistics.interval(errors[entry["rule"]]),
            against.get(entry["rule"]),
        )
        for entry in entries
    ]


def _errors(entry: Mapping[str, Any]) -> list[float]:
    """Test errors by seed; at chance where a run has none."""
    chance = 100 - 100 / entry["classes"]
    found = [run["test_error"] for run in entry["runs"]]
    return [chance if error is None else error for error in found]
