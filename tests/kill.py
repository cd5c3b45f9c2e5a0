"""Kills a run with SIGKILL at random moments, lets it go on each time, and compares its files.

    python tests/kill.py --kills=200 --in_save=50
    python tests/kill.py --search --kills=10

So many kills fall within a save. Of the others one in five falls anywhere in the start of the
process, the rest some epochs later at any point of an epoch. Processes are forked from one that has
imported everything. With --search the run is a search for settings, killed at any moment of some
seconds. Prints what was found; ends with an error if a file differs from those of a run that was
left alone.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import tempfile
import time

import commands
import numpy as np

# Two seeds times two rates, and a rule that draws noise: every part of the state matters.
FLAGS = (
    *("--algo=dtp_sigma", "--lr=0.001,0.002", "--num_seeds=2", "--width=8", "--hidden_layers=2"),
    *("--schedule=cosine", "--weight_decay=0.1"),
)
TIMING = ("seconds", "examples_per_second")


def start(folder, *flags):
    return commands.start("train.py", *FLAGS, *flags, f"--out_dir={folder}")


def finish(process, timeout=600):
    """Waits for a process: its exit status, stdout and stderr."""
    stdout, stderr = process.communicate(timeout)
    return process.returncode, stdout, stderr


def lines(folder, name="metrics.jsonl"):
    """How many whole lines a file has."""
    path = folder / name
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(process, folder, count, name="metrics.jsonl"):
    """Waits until a file has that many lines; whether the process still runs then."""
    while process.poll() is None and lines(folder, name) < count:
        time.sleep(0.001)
    return process.poll() is None


def newest(folder):
    """The step of the newest checkpoint, 0 if there is none."""
    return max((int(path.name[-8:]) for path in folder.glob("checkpoint-????????")), default=0)


def results(folder):
    """Everything in a finished folder that must not depend on when it was interrupted."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in metrics:
        for name in TIMING:
            del line[name]
    with np.load(folder / "best_params.npz") as file:
        params = {name: array.tobytes() for name, array in file.items()}
    return metrics, json.loads((folder / "summary.json").read_text()), params


def kill_once(folder, epochs, rng, startup, begin=start, in_save=False):
    """Starts the run, kills it; whether a save was cut, and how many epochs were lost."""
    process = begin(folder, f"--epochs={epochs}")
    count = lines(folder)
    if in_save:
        wait_for(process, folder, count + rng.randint(1, 3))
        while process.poll() is None and not any(folder.glob("*.tmp")):
            pass
    elif rng.random() < 0.2:
        deadline = time.monotonic() + rng.uniform(0, startup)
        while time.monotonic() < deadline and lines(folder) == count:
            time.sleep(0.001)
    else:
        wait_for(process, folder, count + rng.randint(1, 10))
        time.sleep(rng.uniform(0, 0.03))
    assert process.poll() is None, "the run ended before it was killed: more epochs are needed"
    process.kill()
    process.communicate()
    return any(folder.glob("*.tmp")), lines(folder) - newest(folder)


def searched(folder):
    """The trials and the choice of a search, without the time that they took."""
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for trial in trials:
        del trial["seconds"]
    return trials, json.loads((folder / "preset.json").read_text())


def kill_search(alone, killed, arguments):
    """Two searches alike, one left alone and one killed; what is to be said of them."""
    rng, trials, kept = random.Random(arguments.seed), 12 * arguments.kills, "trials.jsonl"

    def begin(folder):
        words = ("--task=digits", "--epochs=2", f"--trials={trials}", f"--out_dir={folder}")
        return commands.start("tune.py", *words)

    def whole(folder):
        status, _, stderr = finish(begin(folder), None)
        assert status == 0, stderr
        return searched(folder)

    began = time.monotonic()
    first = begin(killed)  # compiles what is kept
    wait_for(first, killed, 1, kept)
    startup = time.monotonic() - began
    done = []
    for number in range(arguments.kills):
        process = begin(killed) if number else first
        done.append(lines(killed, kept))
        if number and rng.random() < 0.5:  # before a generation has ended
            deadline = time.monotonic() + rng.uniform(0, startup)
            while time.monotonic() < deadline and lines(killed, kept) == done[-1]:
                time.sleep(0.001)
        else:  # at any point of the one that follows
            wait_for(process, killed, done[-1] + 1, kept)
            time.sleep(rng.uniform(0, 0.5))
        assert process.poll() is None, f"it ended before it was killed: {process.communicate()[1]}"
        process.kill()
        process.communicate()
        print(f"{number + 1} of {arguments.kills}", end="\r", file=sys.stderr, flush=True)
    assert whole(killed) == whole(alone), "the files differ"
    best = searched(alone)[1]["valid_error"]
    return (
        f"{arguments.kills} kills, with {', '.join(map(str, done))} trials done at the start; "
        f"{trials} trials and the choice ({best:.2f} %) equal those of the search left alone"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--in_save", type=int, default=10, help="of them, at least")
    parser.add_argument("--search", action="store_true", help="of settings, in place of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", default=" ".join(FLAGS), help="of the run")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    # A start should take what it must, so that many kills take minutes: programs are kept.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{temporary}/programs")
        alone, killed = pathlib.Path(temporary) / "alone", pathlib.Path(temporary) / "killed"
        if arguments.search:
            print(kill_search(alone, killed, arguments))
            return

        def begin(folder, *flags):
            words = (*arguments.flags.split(), *flags, f"--out_dir={folder}")
            return commands.start("train.py", *words)

        epochs = 12 * arguments.kills + 100
        began = time.monotonic()
        process = begin(alone, f"--epochs={epochs}")
        wait_for(process, alone, 1)
        startup = time.monotonic() - began
        status, _, stderr = finish(process, None)  # a run of thousands of epochs
        assert status == 0, stderr
        outcomes = []
        while len(outcomes) < arguments.kills:
            # In a save as long as there are too few of these; a save may end before its kill.
            cut = sum(cut for cut, _ in outcomes)
            in_save = (
                rng.random() < 0.3 or arguments.kills - len(outcomes) <= arguments.in_save - cut
            )
            outcomes.append(kill_once(killed, epochs, rng, startup, begin, in_save))
            print(f"{len(outcomes)} of {arguments.kills}", end="\r", file=sys.stderr, flush=True)
        status, _, stderr = finish(begin(killed, f"--epochs={epochs}"), None)
        assert status == 0, stderr
        assert results(killed) == results(alone), "the files differ"
        cut, lost = zip(*outcomes, strict=True)
        print(
            f"{arguments.kills} kills, {sum(cut)} of them within a save; epochs lost by a kill: "
            f"at most {max(lost)}; {epochs} epochs' files equal those of the run left alone"
        )


if __name__ == "__main__":
    main()
