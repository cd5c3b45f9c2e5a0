r"""Reproduces the paper's tables and figures, and goes beyond them, a cell at a time.

    python experiments/reproduce.py --target=all --data_dir=FOLDER
    python experiments/reproduce.py --target=table1 --seeds=5 --data_dir=FOLDER
    python experiments/reproduce.py --target=depth,rules --data_dir=FOLDER
    python experiments/reproduce.py --quick                          two epochs on the digits

Every cell gets its first seed before any gets its second, one seed at a time on a CPU (there they
cost the same together) and all in one program on an accelerator. A seed goes into
results/TARGET/CELL.json as soon as it is trained. What is there is not trained again and what was
cut off goes on (on an accelerator with the same seeds), so the command can be interrupted and given
again, later with more seeds; two of it side by side share the work.
`python experiments/results.py` turns results/ into RESULTS.md and the figures.
"""

import lrajax_command

if __name__ == "__main__":
    lrajax_command.listen()  # before the seconds that imports take

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import flags
from paper import beyond, cells, probes
from tqdm import tqdm

from lrajax import data, training
from lrajax.checks import at_least, one_of
from lrajax.runs import records
from lrajax.runs.commands import commandline
from lrajax.runs.experiment import Experiment
from lrajax.runs.folder import InUseError, RunFolder

TARGETS = beyond.ALL_TARGETS
FLAGS = flags.FlagValues()
TARGET = flags.DEFINE_list(
    "target", ["all"], f"{', '.join(TARGETS)}, with commas, or all: the paper", flag_values=FLAGS
)
CELLS = flags.DEFINE_list(
    "cells",
    [""],
    "only the cells whose names contain one of these, lra_e-8,dfa say",
    flag_values=FLAGS,
)
SEEDS = flags.DEFINE_integer(
    "seeds", None, "seeds of every cell; default: 5, or 1 with --quick", flag_values=FLAGS
)
DATA_DIR = commandline.define_path(
    "data_dir", None, "folder with mnist/, fashion_mnist/ and cifar-10-batches-bin/", FLAGS
)
OUT_DIR = commandline.define_path(
    "out_dir", None, "folder for the results; default: results, or results-quick", FLAGS
)
QUICK = flags.DEFINE_bool(
    "quick", False, "two epochs of narrow networks on the digits", flag_values=FLAGS
)

CHECKPOINT_EVERY = 5  # epochs


def chosen_cells() -> list[cells.Cell]:
    """The cells that the flags ask for."""
    count = SEEDS.value if SEEDS.value is not None else 1 if QUICK.value else 5
    at_least("seeds", count, 1)
    for target in TARGET.value or [""]:
        one_of("target", target, ["all", *TARGETS])
    seeds = tuple(range(count))
    smaller = {"width": 16, "dataset": "digits"}
    quick = cells.Scale(seeds, epochs=2, depths=(3,), smaller=smaller)
    scale = quick if QUICK.value else cells.Scale(seeds)
    names = [name for name in TARGET.value if name != "all"]
    if "all" in TARGET.value:  # the paper's
        names += cells.TARGETS
    # Targets share cells.
    every = {path_of(cell): cell for name in names for cell in TARGETS[name](scale)}.values()
    chosen = [cell for cell in every if any(part in cell.name for part in CELLS.value)]
    if not chosen:
        raise ValueError(
            f"cells={','.join(CELLS.value)} matches none of {[cell.name for cell in every]}"
        )
    return chosen


def out_dir() -> pathlib.Path:
    """The folder for the results; quick ones never mix with the real."""
    return pathlib.Path(OUT_DIR.value or ("results-quick" if QUICK.value else "results"))


def path_of(cell: cells.Cell) -> pathlib.Path:
    """Where a cell's result is kept."""
    return out_dir() / cell.target / f"{cell.name}.json"


def unfinished(cell: cells.Cell) -> pathlib.Path:
    """The folder of a cell's runs while they last."""
    seeds = "-".join(map(str, cell.settings.seeds))
    return out_dir() / "unfinished" / cell.target / f"{cell.name}-{seeds}"


def recorded(cell: cells.Cell) -> dict | None:
    """What the cell's file says; None if there is no file.

    Raises:
      ValueError: it was made with other settings.
    """
    return records.recorded(
        path_of(cell), records.config(cell.settings)["settings"], records.CELL, but=("seeds",)
    )


def with_seeds(cell: cells.Cell, seeds: tuple[int, ...]) -> cells.Cell:
    """The cell with other seeds."""
    return dataclasses.replace(cell, settings=dataclasses.replace(cell.settings, seeds=seeds))


def missing_parts(cell: cells.Cell) -> list[cells.Cell]:
    """The cell with the seeds that are not there, divided into what is trained in one program."""
    record = recorded(cell)
    done = record["settings"]["seeds"] if record else []
    seeds = tuple(seed for seed in cell.settings.seeds if seed not in done)
    together = 1 if jax.default_backend() == "cpu" else max(1, len(seeds))
    return [with_seeds(cell, seeds[i : i + together]) for i in range(0, len(seeds), together)]


@functools.cache
def load(name: str) -> data.Dataset:
    """A data set, read once."""
    return data.load(name, DATA_DIR.value)


def run_cell(cell: cells.Cell, folder: RunFolder) -> dict:
    """Trains a cell's runs, going on where they were left, and measures what its target shows."""
    dataset = load(cell.settings.dataset)
    experiment = Experiment(cell.settings, dataset, num_devices=1, precision=cell.precision)
    measure = cell.probe.curves(experiment)
    done, run = experiment.resume(*folder.resume(jax.eval_shape(experiment.start)))
    bar = tqdm(
        experiment.epochs(run, done),
        initial=done,
        total=cell.settings.epochs,
        desc=cell.name,
        leave=False,
    )
    for epoch in bar:
        run = epoch.run
        due = epoch.number % CHECKPOINT_EVERY == 0 or epoch.number == cell.settings.epochs
        on_host = experiment.on_host(run) if due else None
        folder.write_epoch(epoch, on_host, **measure(run.state.params))
    return result_of(cell, experiment, run, folder.lines(), measure)


def result_of(
    cell: cells.Cell,
    experiment: Experiment,
    run: training.Run,
    lines: list[dict],
    measure: probes.Measure,
) -> dict:
    """What a cell's file says of some seeds."""
    best, diverged_at = experiment.on_host((run.best, run.diverged_at))
    config = records.config(cell.settings)
    seconds = sum(line["seconds"] for line in lines)
    return {
        "target": cell.target,
        "cell": cell.name,
        "settings": config.pop("settings"),
        "parts": [
            {
                "seeds": list(cell.settings.seeds),
                "seconds": round(seconds, 1),
                "precision": cell.precision,
                **config,
            }
        ],
        "summary": records.summary(
            cell.settings, best, experiment.train_error(best.params), diverged_at
        ),
        "curves": records.curves(lines),
        "final": cell.probe.final(experiment, best.params, measure),
    }


def joined(parts: list[dict]) -> dict:
    """One cell's file from those of its seeds; curves are lists over epochs, then over seeds.

    None stands for what was not measured of a seed: of one that is older than its measure, say.
    """
    seeds = [part["settings"]["seeds"] for part in parts]
    curves = filled([part["curves"] for part in parts], seeds, no_curve)
    final = filled([part["final"] for part in parts], seeds, nothing)
    return {
        **parts[0],
        "settings": {**parts[0]["settings"], "seeds": records.concatenated(seeds)},
        "parts": records.concatenated([part["parts"] for part in parts]),
        "summary": records.joined_summary([part["summary"] for part in parts]),
        "curves": {
            name: list(
                map(records.concatenated, zip(*(part[name] for part in curves), strict=True))
            )
            for name in curves[0]
        },
        "final": records.concatenated(final),
    }


def filled(
    measured: list[dict], seeds: list[list[int]], absent: Callable[[Any, int], Any]
) -> list[dict]:
    """What was measured of each part, and `absent` of a measure that only others have."""
    every = {name: value for part in measured for name, value in part.items()}
    return [
        {name: part.get(name, absent(value, len(own))) for name, value in every.items()}
        for part, own in zip(measured, seeds, strict=True)
    ]


def nothing(like: Any, seeds: int) -> Any:
    """None for each of so many seeds, wherever the others' has a list over theirs."""
    if isinstance(like, dict):
        return {name: nothing(part, seeds) for name, part in like.items()}
    return [None] * seeds if isinstance(like, list) else like


def no_curve(like: list, seeds: int) -> list:
    """None for each of so many seeds, an epoch each."""
    return [nothing(epoch, seeds) for epoch in like]


def add(cell: cells.Cell, result: dict) -> None:
    """Puts some seeds' result into the cell's file."""
    path_of(cell).parent.mkdir(parents=True, exist_ok=True)
    with alone_at(unfinished(cell).parent / ".lock"):
        before = recorded(cell)
        if before and set(before["settings"]["seeds"]) & set(cell.settings.seeds):
            tqdm.write(f"{cell.target}/{cell.name}: another process has added these seeds")
            return
        records.write_json(path_of(cell), joined([before, result]) if before else result)


@contextlib.contextmanager
def alone_at(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is there."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # goes as the file is closed
        yield


def complete(part: cells.Cell) -> bool:
    """Trains a part of a cell and adds it to the file, unless another process does.

    Raises:
      ValueError: what is left of an earlier run cannot be gone on with.
    """
    folder = RunFolder(str(unfinished(part)), part.settings, tqdm.write)
    try:
        folder.open()
    except InUseError:
        tqdm.write(f"{part.target}/{part.name} is left to the process that has it")
        return False
    with contextlib.closing(folder):
        missing = bool(missing_parts(part))  # asked again now that no other process is at it
        if missing:
            add(part, run_cell(part, folder))
        # Another process may be opening the folder's lock just now.
        shutil.rmtree(unfinished(part), ignore_errors=True)
    return missing


def in_rounds(lists: list[list[cells.Cell]]) -> list[cells.Cell]:
    """The first of every list, then the second of every list, and so on."""
    rounds = itertools.zip_longest(*lists)
    return [part for each in rounds for part in each if part is not None]


def main() -> None:
    """Trains what is missing."""
    try:
        chosen = chosen_cells()
        parts = in_rounds([missing_parts(cell) for cell in chosen])
        if parts:
            records.check_writable("out_dir", out_dir())
        for name in sorted({part.settings.dataset for part in parts}):
            load(name)
    except ValueError as error:
        commandline.fail(error, FLAGS)
    if not parts:
        print(f"all {len(chosen)} cells are there already: {out_dir()}")
        return
    commandline.keep_programs(out_dir() / "unfinished" / "programs")
    if QUICK.value:  # two epochs take less time than the optimisations would
        jax.config.update("jax_disable_most_optimizations", True)
    written, failed = 0, []
    bar = tqdm(parts, unit="part")
    for part in bar:
        name = f"{part.target}/{part.name}"
        bar.set_description(name)
        try:
            written += complete(part)
        except ValueError as error:  # the other parts can be had all the same
            tqdm.write(f"{name}: {error}")
            failed.append(name)
        jax.clear_caches()  # a long sweep would keep all programs in memory
    print(f"{written} parts of {len(chosen)} cells written to {out_dir()}")
    if failed:
        sys.exit(f"reproduce.py: left out for the errors above: {', '.join(failed)}")


if __name__ == "__main__":
    commandline.run(main, FLAGS, __doc__)
