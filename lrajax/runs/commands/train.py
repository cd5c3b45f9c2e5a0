r"""Trains a network with one learning rule.

    python experiments/train.py                                  LRA-E on the embedded digits
    python experiments/train.py --algo=dfa --dataset=mnist --data_dir=FOLDER --out_dir=runs/dfa
    python experiments/train.py --algo=lra_e --opt=adam --num_seeds=5

Prints, for each seed, the errors in % at the epoch of lowest validation error; --out_dir keeps
config.json, metrics.jsonl, summary.json and the best parameters, and the same command goes on where
it was interrupted.
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from lrajax import data, training
from lrajax.checks import at_least
from lrajax.runs import placement, records, tables, trackers
from lrajax.runs.commands import commandline, helptext, train_flags
from lrajax.runs.experiment import Experiment
from lrajax.runs.folder import RunFolder
from lrajax.runs.interruption import Interruption
from lrajax.runs.settings import Settings
from lrajax.runs.trackers import TRACKERS, Trackers


def train(
    experiment: Experiment,
    folder: RunFolder | None,
    tracked: Trackers,
    run: training.Run,
    done: int,
    interruption: Interruption,
    values: flags.FlagValues,
) -> tuple[training.Run, int]:
    """Trains to the end, or to a signal, behind a progress bar: the runs, and the signal or 0."""
    signal = 0
    interruption.begin()
    bar = tqdm(
        experiment.epochs(run, done),
        initial=done,
        total=experiment.settings.epochs,
        unit="epoch",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs fewer lines
        disable=jax.process_index() > 0,
    )
    for epoch in bar:
        run, signal = epoch.run, interruption.signal()
        stops = signal > 0 or bool(np.all(epoch.diverged_at))
        if values.out_dir:
            last = epoch.number == experiment.settings.epochs
            due = stops or last or epoch.number % values.checkpoint_every == 0
            on_host = experiment.on_host(run) if due else None
            if folder:
                folder.write_epoch(epoch, on_host)
        tracked.write(epoch)
        if jax.process_index() == 0:
            for message in records.divergences(experiment.settings, epoch):
                say(message)
        bar.set_postfix_str(records.progress(epoch), refresh=False)
        if stops:
            break
    bar.close()
    tracked.close()
    return run, signal


def show(settings: Settings, result: dict[str, Any]) -> None:
    """Prints the result's table."""
    how = f"{settings.algo}, {records.optimizer_of(vars(settings))}, {settings.dataset}"
    print(f"{how}: error at lowest validation error")
    print(tables.of_result(settings, result))


def finish(experiment: Experiment, folder: RunFolder | None, run: training.Run, signal: int) -> int:
    """Writes and prints the result, as far as there is one; the exit status."""
    train_error = experiment.train_error(run.best.params)
    best, epoch, diverged_at = experiment.on_host((run.best, run.epoch, run.diverged_at))
    if jax.process_index() > 0:
        return 128 + signal if signal else 0
    settings = experiment.settings
    result = records.summary(settings, best, train_error, diverged_at)
    complete = epoch[0] == settings.epochs or diverged_at.all()
    if folder and complete:
        folder.write_result(result, best.params)
    show(settings, result)
    if folder and folder.error:
        say(f"--out_dir={folder.path} does not hold this result ({folder.error.strerror})")
    if not complete:
        resumes = "the same command goes on from there" if folder else "without --out_dir, not kept"
        say(f"stopped after epoch {epoch[0]} of {settings.epochs}; {resumes}")
    if diverged_at.all():
        say("all runs diverged: lower --lr, or see where with --check_finite")
    if signal:
        return 128 + signal
    return 1 if diverged_at.all() or (folder and folder.error) else 0


def origin(argv: Sequence[str], data_dir: str | None, dataset: data.Dataset) -> dict[str, Any]:
    """What config.json says of where a run comes from, and what its network was made for."""
    place = data_dir or os.environ.get(data.ENV_DATA_DIR)
    return {
        "command": f"{argv[0]} {shlex.join(argv[1:])}",
        "data_dir": os.path.abspath(os.path.expanduser(place)) if place else None,
        "image_shape": dataset.image_shape,
        "num_classes": dataset.num_classes,
    }


def main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Flags to data to compiled epochs to a table; the exit status."""
    interruption = Interruption(say)
    commandline.ease_guards()
    try:
        settings = train_flags.settings(values)
        at_least("checkpoint_every", values.checkpoint_every, 1)
        folders = {name: str(values[name].value) for name in TRACKERS if values[name].value}
        trackers.check(folders)
        placement.join_processes(
            values.coordinator, values.num_processes, values.process_id, values.timeout
        )
        placement.check_backend()
        ignored = values.precision == "bfloat16" and jax.default_backend() == "cpu"
        if ignored and jax.process_index() == 0:
            say("--precision=bfloat16 does nothing on a CPU; --network=mlp_bfloat16 rounds there")
        writes = values.out_dir and jax.process_index() == 0
        folder = RunFolder(values.out_dir, settings, say) if writes else None
        if folder and folder.summary:
            show(settings, folder.summary)
            return 1 if None not in folder.summary["diverged_at"] else 0
        dataset = data.load(
            settings.dataset,
            values.data_dir,
            valid_size=settings.valid_size,
            split_seed=settings.split_seed,
        )
        experiment = Experiment(
            settings, dataset, values.num_devices, values.check_finite, values.precision
        )
        done, run = 0, None
        if folder:
            folder.open(**origin(argv, values.data_dir, dataset))
            done, run = folder.resume(jax.eval_shape(experiment.start))
        title = pathlib.Path(values.out_dir or settings.algo).absolute().name
        tracked = Trackers(folders if jax.process_index() == 0 else {}, settings, title, done, say)
    except ValueError as error:
        commandline.fail(error, values)
    done, run = experiment.resume(done, run)
    run, signal = train(experiment, folder, tracked, run, done, interruption, values)
    status = finish(experiment, folder, run, signal)
    if folder:
        folder.close()
    return status


def say(message: str) -> None:
    """Tells the user something in a line of its own, beside the progress bar."""
    tqdm.write(f"{commandline.program()}: {message}", file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> None:
    """The command, on the words of the command line; ends with SystemExit."""
    commandline.on_any_terminal(lambda: begin(sys.argv if argv is None else argv))


def begin(argv: Sequence[str]) -> NoReturn:
    """The command itself, or its help."""
    if text := helptext.answer(argv):
        print(text)
        sys.exit()
    try:
        values = train_flags.define(train_flags.own_rule(argv))
    except ValueError as error:
        commandline.fail(error, ("algo",))
    commandline.parse_flags(argv, values)
    sys.exit(main(values, argv))
