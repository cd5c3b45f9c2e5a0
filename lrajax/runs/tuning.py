"""Search for the settings of a rule on a task, by the protocol of docs/protocol.md.

Optuna asks for a generation of trials; one compiled program a rule and optimiser trains them, for
the numbers are its arguments: each by itself on a CPU's cores, all at once on an accelerator. The
better half goes on at every rung of epochs. What a generation is asked depends on the seed and on
the trials that have ended, so that a search that was killed, and goes on, asks what it would have
asked.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

import lrajax
from lrajax import checkpoint, initializers, training
from lrajax.data import Dataset
from lrajax.runs import named, presets, records
from lrajax.runs.experiment import Experiment, over_runs
from lrajax.runs.folder import lock
from lrajax.runs.settings import Settings

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the progress bar says it

PROTOCOL = 1  # of docs/protocol.md
GENERATION = 8  # trials that are asked for at once
FRACTIONS = (4, 2, 1)  # of the epochs, after which half of the trials goes on
JOURNAL = b'{"op_code":'  # how Optuna's begin
PRESET = "preset.json"


class Task(NamedTuple):
    """What rules are compared on.

    Attributes:
      title: what tables call it.
      fields: of `Settings`: data set, network, epochs, validation examples.
      trials: of a rule's search.
      final_seeds: how many fresh seeds the chosen settings are trained with.
    """

    title: str
    fields: Mapping[str, Any]
    trials: int = 30
    final_seeds: int = 10


# As long as two CPU cores can carry for every rule.
TASKS = {
    "digits": Task("digits, 3 × 256", {"dataset": "digits", "epochs": 40}),
    "mnist-3": Task("MNIST, 3 × 256", {"dataset": "mnist", "epochs": 20, "valid_size": 10_000}),
    "fashion_mnist-3": Task(
        "Fashion-MNIST, 3 × 256", {"dataset": "fashion_mnist", "epochs": 20, "valid_size": 10_000}
    ),
    "fashion_mnist-8": Task(
        "Fashion-MNIST, 8 × 256",
        {"dataset": "fashion_mnist", "hidden_layers": 8, "epochs": 10, "valid_size": 10_000},
    ),
    "mnist-32": Task(
        "MNIST, 32 × 256",
        {"dataset": "mnist", "hidden_layers": 32, "epochs": 5, "valid_size": 10_000},
    ),
    "cifar10-vgg5": Task(
        "CIFAR-10, vgg5, width 32",
        {
            "dataset": "cifar10",
            "network": "vgg5",
            "width": 32,
            "activation": "relu",
            "augment": ("flip", "crop"),
            "epochs": 6,
            "valid_size": 10_000,
        },
        trials=16,
        final_seeds=5,
    ),
}

# Ranges of what every rule has, searched by logarithm; those of its own numbers are in its record.
OPTIMIZER_RATES = {"sgd": (1e-4, 1.0), "adam": (1e-5, 1e-2)}
DECAY = (1e-4, 1.0)
GAINS = {"w_init": (0.1, 3.0), "e_init": (0.01, 3.0)}  # of orthogonal weights


def suggest(trial: optuna.trial.Trial, rule: lrajax.Rule) -> tuple[str, dict[str, float]]:
    """The optimiser and the numbers of a trial."""
    opt = trial.suggest_categorical("opt", list(OPTIMIZER_RATES))
    ranges = {"weight_decay": DECAY, **rule.traced}
    ranges |= {name: range_ for name, range_ in GAINS.items() if name in rule.hyperparameters}
    values = {name: trial.suggest_float(name, *range_, log=True) for name, range_ in ranges.items()}
    # Named by the optimiser, for the two have nothing to learn from each other's rates.
    values["lr"] = trial.suggest_float(f"lr_{opt}", *OPTIMIZER_RATES[opt], log=True)
    return opt, values


class Program:
    """The runs of a rule under an optimiser on a task: compiled once, the numbers its arguments.

    Runs, seeds, values and errors have a leading axis over the trials that train together.
    """

    def __init__(self, settings: Settings, dataset: Dataset):
        """Compiles nothing yet."""
        experiment = Experiment(settings, dataset, num_devices=1)
        self._sets = experiment.sets
        # On one layout, or the second epoch of a run would be compiled anew.
        here = experiment.placement.replicated

        def start(seed, values, _):
            return experiment.init(seed, _schemes(values))

        def epoch(run, values, sets):
            return experiment.epoch(run, _schemes(values), sets)

        self._start = experiment.compile(functools.partial(over_runs, start), out_shardings=here)
        self._epoch = experiment.compile(
            functools.partial(over_runs, epoch), donate_argnums=0, out_shardings=here
        )
        self.take = experiment.compile(  # some of the runs
            lambda runs, rows: jax.tree.map(lambda leaf: leaf[rows], runs), out_shardings=here
        )

    def start(self, seeds: np.ndarray, values: Mapping[str, np.ndarray]) -> training.Run:
        """Runs before their first epoch."""
        return self._start(seeds, values, None)

    def epoch(
        self, runs: training.Run, values: Mapping[str, np.ndarray]
    ) -> tuple[training.Run, list[float]]:
        """Runs after one more epoch, and their validation errors; 100 once one has diverged."""
        runs, (metrics, diverged_at, _) = self._epoch(runs, values, self._sets)
        return runs, np.where(diverged_at, 100.0, metrics.valid.error).tolist()


def _schemes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with orthogonal initialisers in place of their gains."""
    return {
        name: initializers.orthogonal(value) if name in GAINS else value
        for name, value in values.items()
    }


def _study(name: str, storage: Callable[[], Any], complaint: str) -> optuna.Study:
    """The study of that name; ValueError with complaint and cause if the storage is of no use."""

    def made():
        return optuna.create_study(study_name=name, storage=storage(), load_if_exists=True)

    with contextlib.suppress(Exception):  # of two that make a database at once one fails,
        return made()
    try:  # and finds it made
        return made()
    except Exception as error:  # of any driver there is
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{complaint} ({cause})") from error


class _Held(JournalFileSymlinkLock):
    """Of a journal whose folder is locked as a whole: no link that a death would leave behind."""

    def acquire(self) -> bool:
        """It is."""
        return True

    def release(self) -> None:
        """With the folder."""


def _journal(path: pathlib.Path, lock: JournalFileSymlinkLock) -> optuna.storages.JournalStorage:
    """A storage in a file, without a last line that a full disk or a death has cut short.

    Optuna would write on behind it, and never read past it again.

    Raises:
      ValueError: the file is something else, and is left as it was.
    """
    backend = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        content = path.read_bytes()
        if not content.startswith(JOURNAL[: len(content)]):
            raise ValueError("it is no journal of Optuna")
        os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()
    return optuna.storages.JournalStorage(backend)


def _shared(storage: str) -> Any:
    """The storage of a database's URL, or of a file."""
    if "://" in storage:
        return storage
    # In full, for Optuna's lock is a link: one that leads nowhere it would wait for without end.
    path = pathlib.Path(storage).expanduser().absolute()
    return _journal(path, JournalFileSymlinkLock(str(path)))


class Candidate:
    """A trial in training."""

    def __init__(self, trial: optuna.trial.Trial, rule: lrajax.Rule, index: int):
        """Asks for its numbers; `index` is its seed."""
        self.trial, self.index = trial, index
        self.opt, self.values = suggest(trial, rule)
        self.curve: list[float] = []
        self.seconds = 0.0

    @property
    def error(self) -> float:
        """The lowest validation error so far."""
        return min(self.curve)

    @property
    def diverged(self) -> bool:
        """Whether its last epoch left a number that is not finite."""
        return self.curve[-1:] == [100]

    def line(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "number": self.index,
            "opt": self.opt,
            **self.values,
            "valid_error": self.curve,
            "diverged": self.diverged,
            "seconds": round(self.seconds, 2),
            "protocol": PROTOCOL,
        }


class Batch:
    """Trials that train in one program."""

    def __init__(self, program: Program, candidates: Sequence[Candidate]):
        """Trains nothing yet."""
        self._program, self._candidates = program, candidates
        self._runs: training.Run | None = None

    def keep(self, candidates: Collection[Candidate]) -> bool:
        """Lets go of all but these; whether any are left."""
        rows = [row for row, mine in enumerate(self._candidates) if mine in candidates]
        if 0 < len(rows) < len(self._candidates):
            self._runs = self._program.take(self._runs, np.array(_filled(rows)))
        self._candidates = [self._candidates[row] for row in rows]
        return bool(rows)

    def train(self, epochs: int) -> None:
        """Goes on until so many epochs are done, or all have diverged."""
        began = time.perf_counter()
        lanes = _filled(self._candidates)
        values = {
            name: np.array([candidate.values[name] for candidate in lanes], np.float32)
            for name in lanes[0].values
        }
        if self._runs is None:
            seeds = np.array([candidate.index for candidate in lanes], np.uint32)
            self._runs = self._program.start(seeds, values)
        for _ in range(len(lanes[0].curve), epochs):
            self._runs, errors = self._program.epoch(self._runs, values)
            for candidate, error in zip(self._candidates, errors, strict=False):
                if not candidate.diverged:
                    candidate.curve.append(error)
            if all(candidate.diverged for candidate in self._candidates):
                break
        seconds = (time.perf_counter() - began) / len(self._candidates)
        for candidate in self._candidates:
            candidate.seconds += seconds


def _filled(items: Sequence[Any]) -> list[Any]:
    """The items, the last of them again up to a power of two: few sizes are compiled."""
    size = 1 << (len(items) - 1).bit_length()
    return [*items, *[items[-1]] * (size - len(items))]


class Search:
    """The search of one rule on one task, in a folder or in a storage that machines share."""

    def __init__(
        self,
        algo: str,
        dataset: Dataset,
        fields: Mapping[str, Any],
        folder: pathlib.Path,
        *,
        seed: int = 0,
        storage: str | None = None,
        workers: int = 1,
    ):
        """Goes on with what the folder, or the storage, has.

        Args:
          algo: a key of `lrajax.RULES`, or MODULE:FUNCTION.
          dataset: of the task.
          fields: of the task's `Settings`.
          folder: keeps the journal, `trials.jsonl` and `preset.json`; made if need be.
          seed: of the search.
          storage: an Optuna storage, the URL of a database or a file, that several searches share,
            each in a folder of its own; None for a journal in the folder.
          workers: trials that train side by side.

        Raises:
          ValueError: settings that cannot be run, or a folder or a storage that cannot be used.
        """
        self.rule, self.folder, self.seed, self.workers = named.rule(algo), folder, seed, workers
        if self.rule.clipped:  # its units have their own activation
            fields = {name: value for name, value in fields.items() if name != "activation"}
        self.fields = fields
        self.programs, self._shared = {}, storage is not None
        for opt in OPTIMIZER_RATES:
            # With a decay, which not every rule of one's own can have.
            own = {"opt": opt, "schedule": "cosine", "weight_decay": DECAY[0]}
            settings = presets.resolve(algo, **{**fields, **own})
            self.programs[opt] = Program(settings, dataset)
        self.epochs = settings.epochs
        records.check_writable("out_dir", folder)
        name = f"{algo} {json.dumps(fields, sort_keys=True, default=list)}"
        self._lock = lock(folder)
        journal = folder / "journal.log"
        try:
            self._check_same()
            if storage is not None:
                complaint = (
                    f"storage={storage} cannot be used: mend it, or choose another file or URL, as "
                    "sqlite:///FILE"
                )
                self.study = _study(name, lambda: _shared(storage), complaint)
                return  # trials that run may be other machines'
            complaint = f"{journal} is damaged: bring it back, or delete it"
            self.study = _study(name, lambda: _journal(journal, _Held(str(journal))), complaint)
            self._check_seed()
        except ValueError:
            self.close()
            raise
        # What a process that died had trained, and what is asked for again.
        self._settle(self.study.user_attrs.get("generation", {}))
        for trial in self._trials(optuna.trial.TrialState.RUNNING):
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _check_same(self) -> None:
        """Raises ValueError if the folder has what a search of something else has found."""
        path = self.folder / PRESET
        if not path.exists():
            return
        theirs = records.read_record(path, ("settings",))["settings"]
        mine = {"algo": self.rule.name, **json.loads(json.dumps(self.fields, default=list))}
        for name, value in mine.items():
            if theirs.get(name, value) != value:
                raise ValueError(
                    f"{name}={value}: {path} is of a search with {theirs[name]}: choose another "
                    "out_dir"
                )

    def _check_seed(self) -> None:
        """Raises ValueError if the folder's search was begun with another seed."""
        begun = self.study.user_attrs.get("seed")
        if begun is None:
            self.study.set_user_attr("seed", self.seed)
        elif begun != self.seed:
            raise ValueError(
                f"seed={self.seed}: the search in {self.folder} was begun with {begun}: choose "
                "another out_dir"
            )

    def close(self) -> None:
        """Gives the folder free; the end of the process does so too."""
        self._lock.close()

    def _trials(self, *states: optuna.trial.TrialState) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    @property
    def ended(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that have ended, those that did not go on included."""
        return self._trials(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    @property
    def passes(self) -> int:
        """Epochs that the trials which ended have trained."""
        return sum(max(trial.intermediate_values, default=0) for trial in self.ended)

    def generations(self, trials: int, passes: float = np.inf) -> Iterator[list[Candidate]]:
        """Searches until so many trials, or epochs, are done; gives each generation as it ends."""
        while len(self.ended) < trials and self.passes < passes:
            asked = self._ask(min(GENERATION, trials - len(self.ended)))
            self._train(asked)
            self._keep()
            yield asked
        self._keep()  # a death may have come before, other machines' trials behind

    def _ask(self, size: int) -> list[Candidate]:
        """A generation: what it is asked depends on the seed and on the index of its first trial.

        Optuna's own numbers count those too that died with a process, but tell trials of several
        processes apart.
        """
        asked: list[Candidate] = []
        done = len(self.ended)
        while len(asked) < size:
            trial = self.study.ask()
            index = trial.number if self._shared else done + len(asked)
            if not asked:
                self.study.sampler = optuna.samplers.TPESampler(
                    seed=(1_000_003 * self.seed + index) % 2**32, constant_liar=True
                )
            asked.append(Candidate(trial, self.rule, index))
        return asked

    def follow(self, bar: Any, trials: int, passes: float = np.inf) -> None:
        """Goes through the generations, and says on a progress bar how far and how good.

        Raises:
          OSError: the folder cannot be written, and is named; the same search goes on.
        """
        try:
            for generation in self.generations(trials, passes):
                bar.update(len(generation))
                bar.set_postfix_str(f"best {self.study.best_value:.2f} % valid")
        except OSError as error:
            error.filename = error.filename or str(self.folder)
            raise

    def _train(self, candidates: list[Candidate]) -> None:
        """Trains a generation, half of it further and further."""
        alive, batches = candidates, self._batches(candidates)
        for fraction in FRACTIONS:
            finite = [candidate for candidate in alive if not candidate.diverged]
            batches = [batch for batch in batches if batch.keep(finite)]
            train = functools.partial(Batch.train, epochs=max(1, self.epochs // fraction))
            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(train, batches))
            alive = sorted(alive, key=lambda c: (c.error, c.index))[: (len(alive) + 1) // 2]
        lines = {str(candidate.trial.number): candidate.line() for candidate in candidates}
        self.study.set_user_attr("generation", lines)  # one write: all survives, or nothing
        self._settle(lines)

    def _batches(self, candidates: Sequence[Candidate]) -> list[Batch]:
        """What trains in one program: a trial on a CPU, whose products gain nothing, else all."""
        if jax.default_backend() == "cpu":
            return [Batch(self.programs[one.opt], [one]) for one in candidates]
        by_opt = {opt: [one for one in candidates if one.opt == opt] for opt in self.programs}
        return [Batch(self.programs[opt], of) for opt, of in by_opt.items() if of]

    def _settle(self, lines: Mapping[str, dict[str, Any]]) -> None:
        """Tells the study what a generation's trials have come to, as far as it does not know."""
        longest = max((len(line["valid_error"]) for line in lines.values()), default=0)
        for running in self._trials(optuna.trial.TrialState.RUNNING):
            if str(running.number) not in lines:
                continue
            line = lines[str(running.number)]
            trial, curve = optuna.trial.Trial(self.study, running._trial_id), line["valid_error"]
            trial.set_user_attr("line", line)
            trial.report(min(curve), len(curve))
            if len(curve) == longest:
                self.study.tell(trial, min(curve))
            else:
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def _keep(self) -> None:
        """Writes the files anew from the storage, which alone must survive."""
        lines = [json.dumps(trial.user_attrs["line"]) + "\n" for trial in self.ended]
        checkpoint.write(self.folder / "trials.jsonl", "".join(lines).encode())
        records.write_json(self.folder / PRESET, self.preset())

    def preset(self) -> dict[str, Any]:
        """The settings of lowest validation error, as `train.py --preset` takes them.

        All of them, so that a preset stays what it is when the table of presets changes.
        """
        best = self.study.best_trial.params
        opt = best["opt"]
        names = ("weight_decay", *self.rule.traced)
        chosen = {
            "opt": opt,
            "lr": best[f"lr_{opt}"],
            "schedule": "cosine",
            **{name: best[name] for name in names},
            **{name: f"orthogonal:{best[name]}" for name in GAINS if name in best},
        }
        settings = dataclasses.asdict(presets.resolve(self.rule.name, **{**self.fields, **chosen}))
        hyperparameters = settings.pop("hyperparameters")
        for of_a_run in ("seeds", "sweep"):
            del settings[of_a_run]
        return {
            "protocol": PROTOCOL,
            "valid_error": self.study.best_value,
            "trials": len(self.ended),
            "epochs_searched": self.passes,
            "settings": {**settings, **hyperparameters},
        }
