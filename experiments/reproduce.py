r"""Reproduces the paper's tables and figures, and goes beyond them, a cell at a time.

    python experiments/reproduce.py --target=all --data_dir=FOLDER
    python experiments/reproduce.py --target=table1 --seeds=5 --data_dir=FOLDER
    python experiments/reproduce.py --target=depth,rules --data_dir=FOLDER
    python experiments/reproduce.py --quick                          two epochs on the digits

Each cell's result is written to results/TARGET/CELL.json as soon as it is there. Cells that are
there already are skipped and a cell that was cut off goes on, so the command can be interrupted and
given again; two of it side by side share the cells.
`python experiments/results.py` turns results/ into RESULTS.md and the figures.
"""

import functools
import pathlib
import shutil

import beyond
import cells
import commandline
import jax
import probes
import records
import runs
from absl import app, flags
from folder import RunFolder
from tqdm import tqdm

from lrajax import data, training
from lrajax._checks import at_least, one_of

# "all" is the paper's.
TARGETS = {**cells.TARGETS, **beyond.TARGETS}
TARGET = flags.DEFINE_list(
    "target", ["all"], f"{', '.join(TARGETS)}, with commas, or all: the paper"
)
CELLS = flags.DEFINE_string("cells", "", "only the cells whose name contains this, lra_e-8 say")
SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of every cell")
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder with mnist/ and fashion_mnist/")
OUT_DIR = flags.DEFINE_string(
    "out_dir", None, "folder for the results; default: results, or results-quick"
)
QUICK = flags.DEFINE_bool("quick", False, "two epochs of narrow networks on the digits")

CHECKPOINT_EVERY = 5  # epochs


def chosen_cells() -> list[cells.Cell]:
    """The cells that the flags ask for."""
    at_least("seeds", SEEDS.value, 1)
    for target in TARGET.value:
        one_of("target", target, ["all", *TARGETS])
    seeds = tuple(range(SEEDS.value))
    quick = cells.Scale(seeds[:2], epochs=2, depths=(3,), width=16, dataset="digits")
    scale = quick if QUICK.value else cells.Scale(seeds)
    names = cells.TARGETS if "all" in TARGET.value else TARGET.value
    every = [cell for name in names for cell in TARGETS[name](scale)]
    chosen = [cell for cell in every if CELLS.value in cell.name]
    if not chosen:
        raise ValueError(f"cells={CELLS.value} matches none of {[cell.name for cell in every]}")
    return chosen


def out_dir() -> pathlib.Path:
    """The folder for the results; quick ones never mix with the real."""
    return pathlib.Path(OUT_DIR.value or ("results-quick" if QUICK.value else "results"))


def path_of(cell: cells.Cell) -> pathlib.Path:
    """Where a cell's result is kept."""
    return out_dir() / cell.target / f"{cell.name}.json"


def unfinished(cell: cells.Cell) -> pathlib.Path:
    """The folder of a cell's runs while they last."""
    return out_dir() / "unfinished" / cell.target / cell.name


@functools.cache
def load(name: str) -> data.Dataset:
    """A data set, read once."""
    return data.load(name, DATA_DIR.value)


def run_cell(cell: cells.Cell) -> dict:
    """Trains a cell's runs, going on where they were left, and measures what its target shows."""
    folder = RunFolder(str(unfinished(cell)), cell.settings, tqdm.write)
    folder.open()
    experiment = runs.Experiment(cell.settings, load(cell.settings.dataset), num_devices=1)
    probe = probes.make(cell.target, experiment)
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
        folder.write_epoch(epoch, on_host, **probe(run.state.params))
    result = result_of(cell, experiment, run, folder.lines())
    folder.close()
    return result


def result_of(
    cell: cells.Cell, experiment: runs.Experiment, run: training.Run, lines: list[dict]
) -> dict:
    """What a cell's file says."""
    best, diverged_at = experiment.on_host((run.best, run.diverged_at))
    numbers = {"epoch", "seconds", "examples_per_second"}
    return {
        "target": cell.target,
        "cell": cell.name,
        **records.config(cell.settings),
        "summary": records.summary(
            cell.settings, best, experiment.train_error(best.params), diverged_at
        ),
        "curves": {
            name: [line[name] for line in lines] for name in lines[0] if name not in numbers
        },
        "final": probes.final(cell.target, experiment, best.params),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
    }


def main(argv: list[str]) -> None:
    """Runs the cells that are missing."""
    del argv
    try:
        chosen = chosen_cells()
        missing = [cell for cell in chosen if not path_of(cell).exists()]
        for name in sorted({cell.settings.dataset for cell in missing}):
            load(name)
    except ValueError as error:
        commandline.fail(error)
    if not missing:
        print(f"all {len(chosen)} cells are there already: {out_dir()}")
        return
    written = 0
    bar = tqdm(missing, unit="cell")
    for cell in bar:
        bar.set_description(f"{cell.target}/{cell.name}")
        written += complete(cell)
        jax.clear_caches()  # no two cells share a program; a long sweep would keep them all
    print(f"{written} cells written to {out_dir()}")


def complete(cell: cells.Cell) -> bool:
    """Runs a cell and writes its file, unless another process has it."""
    if path_of(cell).exists():
        return False
    try:
        result = run_cell(cell)
    except ValueError as error:
        tqdm.write(f"{cell.target}/{cell.name} left out: {error}")
        return False
    path_of(cell).parent.mkdir(parents=True, exist_ok=True)
    records.write_json(path_of(cell), result)
    shutil.rmtree(unfinished(cell))
    return True


if __name__ == "__main__":
    app.run(main, flags_parser=commandline.parse_flags)
