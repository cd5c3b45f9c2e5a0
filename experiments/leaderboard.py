r"""Compares rules by docs/protocol.md, each tuned alike, and writes LEADERBOARD.md.

    python experiments/leaderboard.py                          LEADERBOARD.md from what is there
    python experiments/leaderboard.py --task=digits            every rule on a task
    python experiments/leaderboard.py --task=digits --algo=mine:my_rule    one's own beside them

A rule is searched for its settings, trained anew with fresh seeds, and its card measured. All of it
goes into leaderboard/TASK/RULE/ as it comes: the same command goes on where it was interrupted, and
two of it side by side share the rules.
"""

import lrajax_command

if __name__ == "__main__":
    lrajax_command.listen()  # before the seconds that imports take

import pathlib
import sys

import jax
from absl import flags
from tqdm import tqdm

import lrajax
from lrajax import data
from lrajax.checks import at_least, one_of
from lrajax.runs import named
from lrajax.runs.commands import commandline
from lrajax.runs.folder import InUseError
from lrajax.runs.records import usable

try:
    from lrajax.runs import comparison, leaderboard, tuning
except ModuleNotFoundError as error:
    sys.exit(f"leaderboard.py: {error.name} is not installed: pip install '.[tune]' has it")

FLAGS = flags.FlagValues()
TASK = flags.DEFINE_list("task", "", "tasks, with commas; default: none", flag_values=FLAGS)
ALGO = flags.DEFINE_list(
    "algo", "", f"rules, with commas, or {named.OWN}; default: all", flag_values=FLAGS
)
TRIALS = flags.DEFINE_integer(
    "trials", None, "of every search; default: the task's", flag_values=FLAGS
)
WORKERS = flags.DEFINE_integer("workers", 1, "trials side by side", flag_values=FLAGS)
DATA_DIR = commandline.define_path("data_dir", None, "as in train.py", FLAGS)
OUT_DIR = commandline.define_path("out_dir", "leaderboard", "folder of the entries", FLAGS)
OUT = commandline.define_path("out", "LEADERBOARD.md", "file to write", FLAGS)


def load(name: str, **split) -> data.Dataset:
    """A data set from --data_dir."""
    return data.load(name, DATA_DIR.value, **split)


def main() -> None:
    """Trains what is missing and writes the page."""
    root = pathlib.Path(OUT_DIR.value)
    algos = ALGO.value or list(lrajax.RULES)
    try:
        for task in TASK.value:
            one_of("task", task, tuning.TASKS)
            load(tuning.TASKS[task].fields["dataset"])
        for algo in algos:
            named.rule(algo)
        if ALGO.value and not TASK.value:
            raise ValueError(f"algo={','.join(algos)}: on which task? --task=digits, say")
        if TRIALS.value is not None:
            at_least("trials", TRIALS.value, 1)
        at_least("workers", WORKERS.value, 1)
        if TASK.value:
            commandline.keep_programs(root / "programs")
        failed, every = [], [(task, algo) for task in TASK.value for algo in algos]
        for task, algo in tqdm(every, unit="rule", disable=not every):
            try:
                trials = TRIALS.value or tuning.TASKS[task].trials
                comparison.enter(algo, task, root, load, trials=trials, workers=WORKERS.value)
            except InUseError:
                tqdm.write(f"{task}/{algo} is left to the process that has it")
            except ValueError as error:  # the other rules can be had all the same
                tqdm.write(f"{task}/{algo}: {error}")
                failed.append(f"{task}/{algo}")
            jax.clear_caches()  # a long comparison would keep all programs in memory
        standings = comparison.standings(root)
        if not standings:  # an empty page would take the place of a full one
            raise ValueError(
                f"out_dir={OUT_DIR.value} holds no finished entry: name a folder that does, or "
                "make entries with --task"
            )
        with usable("out", OUT.value):
            pathlib.Path(OUT.value).write_text(leaderboard.page(standings), encoding="utf-8")
    except ValueError as error:
        commandline.fail(error, FLAGS)
    print(f"written: {OUT.value}")
    if failed:
        sys.exit(f"leaderboard.py: left out for the errors above: {', '.join(failed)}")


if __name__ == "__main__":
    commandline.run(main, FLAGS, __doc__)
