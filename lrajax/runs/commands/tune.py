r"""Searches for a rule's settings on a task, by the protocol of docs/protocol.md.

    python experiments/tune.py --algo=lra_e --task=digits --trials=30
    python experiments/tune.py --algo=dfa --task=mnist-3 --data_dir=FOLDER --out_dir=tuned/dfa
    python experiments/train.py --algo=lra_e --preset=tuned/digits/lra_e/preset.json

The folder keeps a line a trial in trials.jsonl, the choice in preset.json and the search itself in
journal.log: the same command goes on where it was interrupted, and asks for what it would have.
"""

import contextlib
import pathlib
import sys

from absl import flags
from tqdm import tqdm

import lrajax
from lrajax import data
from lrajax.checks import at_least, between, one_of
from lrajax.runs import named
from lrajax.runs.commands import commandline

FLAGS = flags.FlagValues()
ALGO = flags.DEFINE_string(
    "algo", "lra_e", f"learning rule: {', '.join(lrajax.RULES)}, or {named.OWN}", flag_values=FLAGS
)
TASK = flags.DEFINE_string("task", "digits", "see docs/protocol.md", flag_values=FLAGS)
TRIALS = flags.DEFINE_integer(
    "trials", None, "settings to try, all in all; default: the task's", flag_values=FLAGS
)
PASSES = flags.DEFINE_integer(
    "passes",
    None,
    "epochs of all trials together; default: what they take",
    flag_values=FLAGS,
)
EPOCHS = flags.DEFINE_integer(
    "epochs", None, "of a trial that goes on to the end; default: the task's", flag_values=FLAGS
)
SEED = flags.DEFINE_integer("seed", 0, "of the search", flag_values=FLAGS)
WORKERS = flags.DEFINE_integer("workers", 1, "trials side by side", flag_values=FLAGS)
STORAGE = commandline.define_path(
    "storage",
    None,
    "what machines share, each with an --out_dir of its own: a file, or the URL of a database",
    FLAGS,
)
DATA_DIR = commandline.define_path("data_dir", None, "as in train.py", FLAGS)
OUT_DIR = commandline.define_path(
    "out_dir", None, "folder of the search; default: tuned/TASK/ALGO", FLAGS
)


def main() -> None:
    """Flags to data to generations of trials to a preset."""
    try:
        from lrajax.runs import tuning  # lazy: Optuna is an extra
    except ModuleNotFoundError as error:
        sys.exit(f"{commandline.program()}: {error.name} is missing: pip install '.[tune]' has it")
    try:
        named.rule(ALGO.value)
        one_of("task", TASK.value, tuning.TASKS)
        for flag in (TRIALS, WORKERS, EPOCHS, PASSES):
            if flag.value is not None:
                at_least(flag.name, flag.value, 1)
        between("seed", SEED.value, 0, 2**32 - 1)
        task = tuning.TASKS[TASK.value]
        fields, trials = dict(task.fields), TRIALS.value or task.trials
        if EPOCHS.value is not None:
            fields["epochs"] = EPOCHS.value
        out_dir = OUT_DIR.value or f"tuned/{TASK.value}/{ALGO.value}"
        search = tuning.Search(
            ALGO.value,
            data.load(fields["dataset"], DATA_DIR.value, valid_size=fields.get("valid_size")),
            fields,
            pathlib.Path(out_dir),
            seed=SEED.value,
            storage=STORAGE.value,
            workers=WORKERS.value,
        )
    except ValueError as error:
        commandline.fail(error, FLAGS)
    bar = tqdm(initial=len(search.ended), total=trials, unit="trial", desc=ALGO.value)
    with bar, contextlib.closing(search):
        search.follow(bar, trials, PASSES.value or float("inf"))
    print(f"{search.folder / tuning.PRESET}: {search.study.best_value:.2f} % validation error")


def run() -> None:
    """The command, with the words of the command line."""
    commandline.run(main, FLAGS, __doc__)
