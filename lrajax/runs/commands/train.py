r"""Trains a network with one learning rule.

    python experiments/train.py                                  LRA-E on the embedded digits
    python experiments/train.py --algo=dfa --dataset=mnist --data_dir=FOLDER --out_dir=runs/dfa
    python experiments/train.py --algo=lra_e --opt=adam --num_seeds=5

Prints, for each seed, the errors in % at the epoch of lowest validation error; --out_dir keeps
config.json, metrics.jsonl, summary.json and the best parameters, and the same command goes on where
it was interrupted.
"""

import sys
from typing import Any

import jax
import numpy as np
from absl import app, flags
from tqdm import tqdm

import lrajax
from lrajax import data, training
from lrajax.checks import at_least, between, one_of
from lrajax.networks import NETWORKS
from lrajax.runs import placement, presets, records
from lrajax.runs import settings as runs
from lrajax.runs.commands import commandline, helptext
from lrajax.runs.experiment import Experiment
from lrajax.runs.folder import RunFolder
from lrajax.runs.interruption import Interruption

ALGO = flags.DEFINE_string("algo", "lra_e", f"learning rule: {', '.join(lrajax.ALGORITHMS)}")
OPT = flags.DEFINE_string(
    "opt", None, f"{', '.join(presets.OPTIMIZERS)}; default: the paper's for the rule"
)
LR = flags.DEFINE_list(
    "lr", None, "learning rate; default: the rule's preset, or the paper's for --opt"
)
DATASET = flags.DEFINE_string(
    "dataset",
    "digits",
    "digits (embedded), a name of --list, FILE.npz or a folder of IDX files",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "folder of the set's files, or TFDS's; default: LRAJAX_DATA_DIR, then TFDS's own",
)
AUGMENT = flags.DEFINE_list(
    "augment", [], f"of training images, with commas: {', '.join(data.AUGMENTATIONS)}"
)
STANDARDIZE = flags.DEFINE_bool(
    "standardize", None, "images by channel; default: those with colours"
)
VALID_SIZE = flags.DEFINE_integer("valid_size", None, "examples held out for validation")
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "seed of the validation split")
SCHEDULE = flags.DEFINE_string(
    "schedule", "constant", f"of the learning rate: {' or '.join(runs.SCHEDULES)}"
)
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", 0.0, "of W and learned E, times --lr as in AdamW; one number"
)
NETWORK = flags.DEFINE_string("network", "mlp", ", ".join(NETWORKS))
SIZES = [
    flags.DEFINE_integer("hidden_layers", None, "of dense networks: how many; default: 3"),
    flags.DEFINE_integer("width", None, "units in each, 256; of networks for images: feature maps"),
]
ACTIVATION = flags.DEFINE_string(
    "activation", "tanh", "of the hidden layers; bernoulli: units that fire at random"
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 50, "examples in a mini-batch")
EPOCHS = flags.DEFINE_integer("epochs", 100, "passes over the training set")
SEED = flags.DEFINE_integer("seed", 0, "seed of the first run")
NUM_SEEDS = flags.DEFINE_integer("num_seeds", 1, "runs trained together, seeds --seed and up")
NUM_DEVICES = flags.DEFINE_integer(
    "num_devices",
    None,
    "devices to split runs or mini-batches over; default: what divides them",
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16"],
    "of matrix products; bfloat16: that on a TPU, TF32 on a GPU that has it, no effect on a CPU",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of process 0")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "several processes: how many")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "several processes: this one, from 0")
TIMEOUT = flags.DEFINE_integer("timeout", 60, "several processes: seconds to wait for the others")
OUT_DIR = flags.DEFINE_string("out_dir", None, "folder for the run's files; default: none kept")
CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 1, "epochs between checkpoints")
CHECK_FINITE = flags.DEFINE_bool("check_finite", False, "say where a run stops being finite")

# The rules' own settings: named as the factories' arguments, None leaves the rule's default. Those
# read as numbers take several, with commas, and train every combination with every seed at once.
NUMBERS = [
    LR,
    flags.DEFINE_list("beta", None, "lra_e, rec_lra: scale of the displacement; equil_prop: nudge"),
    flags.DEFINE_list("gamma", None, "lra_e, rec_lra: rate of the error weights over the forward"),
    flags.DEFINE_list("noise", None, "dtp: standard deviation of the injected noise"),
    flags.DEFINE_list("alpha", None, "dtp_sigma: standard deviation of the topmost noise"),
    flags.DEFINE_list("target_rate", None, "dtp, dtp_sigma: step to the topmost hidden target"),
    flags.DEFINE_list("step_size", None, "equil_prop, predictive_coding: Euler step of relaxation"),
    flags.DEFINE_list("decay", None, "kolen_pollack: weight decay of forward and error weights"),
]
RATES = flags.DEFINE_list("rates", None, "equil_prop: factor on each layer's update, with commas")
OTHERS = [
    flags.DEFINE_string("local_loss", None, "lra_e, rec_lra: gaussian or cauchy"),
    flags.DEFINE_bool("derivative", None, "lra_e, rec_lra: with derivatives (V1) or without"),
    flags.DEFINE_integer("stride", None, "rec_lra: hidden layers from one error skip to the next"),
    flags.DEFINE_integer("steps", None, "predictive_coding: relaxation steps"),
    flags.DEFINE_string("nudge", None, "equil_prop: random, centred or positive"),
    flags.DEFINE_integer("free_steps", None, "equil_prop: relaxation steps of the free phase"),
    flags.DEFINE_integer("nudged_steps", None, "equil_prop: relaxation steps of a nudged phase"),
    flags.DEFINE_float("tolerance", None, "equil_prop: largest move at which a phase has settled"),
    flags.DEFINE_string("sigma_loss", None, "dtp_sigma: what sets σ, target or corrupted"),
    flags.DEFINE_string("over_units", None, "dtp_sigma: sum or mean of that loss over the units"),
    flags.DEFINE_string("reduction", None, "sum or mean of the updates over the mini-batch"),
    flags.DEFINE_string(
        "w_init", None, "glorot, orthogonal[:GAIN], gaussian:STD or unit_gain:BETA"
    ),
    flags.DEFINE_string("e_init", None, "the same for feedback weights, where the rule has any"),
]


def numbers(flag: flags.FlagHolder) -> tuple[float, ...]:
    """The numbers of a flag, or ValueError."""
    try:
        return tuple(map(float, flag.value or [""]))
    except ValueError:
        text = ",".join(flag.value)
        raise ValueError(f"{flag.name}={text}: write a number, or several with commas") from None


def settings_from_flags() -> runs.Settings:
    """Reads the flags; raises ValueError for what cannot be run."""
    one_of("algo", ALGO.value, lrajax.ALGORITHMS)
    one_of("network", NETWORK.value, NETWORKS)
    between("num_seeds", NUM_SEEDS.value, 1, 100_000)
    sizes = runs.network_sizes(NETWORK.value)
    sizes |= {flag.name: flag.value for flag in SIZES if flag.value is not None}
    preset = presets.preset(ALGO.value, sizes["hidden_layers"])
    given = {flag.name: numbers(flag) for flag in NUMBERS if flag.value is not None}
    sweep = {name: values for name, values in given.items() if len(values) > 1}
    hyperparameters = {
        **runs.defaults(ALGO.value),
        **preset.hyperparameters,
        **{name: values[0] for name, values in given.items() if name != "lr"},
        **{flag.name: flag.value for flag in OTHERS if flag.value is not None},
        **({"rates": numbers(RATES)} if RATES.value is not None else {}),
    }
    opt = OPT.value or preset.opt
    return runs.Settings(
        algo=ALGO.value,
        opt=opt,
        lr=given["lr"][0] if "lr" in given else preset.rate(opt),
        dataset=DATASET.value,
        network=NETWORK.value,
        **sizes,
        activation=ACTIVATION.value,
        batch_size=BATCH_SIZE.value,
        epochs=EPOCHS.value,
        seeds=tuple(range(SEED.value, SEED.value + NUM_SEEDS.value)),
        hyperparameters=hyperparameters,
        sweep=sweep,
        valid_size=VALID_SIZE.value,
        split_seed=SPLIT_SEED.value,
        schedule=SCHEDULE.value,
        weight_decay=WEIGHT_DECAY.value,
        augment=tuple(AUGMENT.value),
        standardize=STANDARDIZE.value,
    )


def train(
    experiment: Experiment,
    folder: RunFolder | None,
    run: training.Run,
    done: int,
    interruption: Interruption,
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
        if OUT_DIR.value:
            last = epoch.number == experiment.settings.epochs
            due = stops or last or epoch.number % CHECKPOINT_EVERY.value == 0
            on_host = experiment.on_host(run) if due else None
            if folder:
                folder.write_epoch(epoch, on_host)
        if jax.process_index() == 0:
            for message in records.divergences(experiment.settings, epoch):
                say(message)
        bar.set_postfix_str(records.progress(epoch), refresh=False)
        if stops:
            break
    bar.close()
    return run, signal


def show(settings: runs.Settings, result: dict[str, Any]) -> None:
    """Prints the result's table."""
    how = f"{settings.algo}, {records.optimizer_of(vars(settings))}, {settings.dataset}"
    print(f"{how}: error at lowest validation error")
    print(records.table(result))


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
        say(f"--out_dir={OUT_DIR.value} does not hold this result ({folder.error.strerror})")
    if not complete:
        resumes = "the same command goes on from there" if folder else "without --out_dir, not kept"
        say(f"stopped after epoch {epoch[0]} of {settings.epochs}; {resumes}")
    if diverged_at.all():
        say("all runs diverged: lower --lr, or see where with --check_finite")
    if signal:
        return 128 + signal
    return 1 if diverged_at.all() or (folder and folder.error) else 0


def main(argv: list[str]) -> None:
    """Flags to data to compiled epochs to a table."""
    interruption = Interruption(say)
    try:
        settings = settings_from_flags()
        at_least("checkpoint_every", CHECKPOINT_EVERY.value, 1)
        jax.config.update("jax_default_matmul_precision", PRECISION.value)
        placement.join_processes(
            COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, TIMEOUT.value
        )
        ignored = PRECISION.value == "bfloat16" and jax.default_backend() == "cpu"
        if ignored and jax.process_index() == 0:
            say("--precision=bfloat16 does nothing on a CPU; --network=mlp_bfloat16 rounds there")
        writes = OUT_DIR.value and jax.process_index() == 0
        folder = RunFolder(OUT_DIR.value, settings, say) if writes else None
        if folder and folder.summary:
            show(settings, folder.summary)
            sys.exit(1 if None not in folder.summary["diverged_at"] else 0)
        dataset = data.load(
            settings.dataset,
            DATA_DIR.value,
            valid_size=settings.valid_size,
            split_seed=settings.split_seed,
        )
        experiment = Experiment(settings, dataset, NUM_DEVICES.value, CHECK_FINITE.value)
        done, run = 0, None
        if folder:
            folder.open()
            done, run = folder.resume(jax.eval_shape(experiment.start))
    except ValueError as error:
        commandline.fail(error)
    done, run = experiment.resume(done, run)
    run, signal = train(experiment, folder, run, done, interruption)
    status = finish(experiment, folder, run, signal)
    if folder:
        folder.close()
    sys.exit(status)


def say(message: str) -> None:
    """Tells the user something in a line of its own, beside the progress bar."""
    tqdm.write(f"{commandline.program()}: {message}", file=sys.stderr)


def parse_flags(argv: list[str]) -> list[str]:
    """The binaries' parser, with a short help."""
    if text := helptext.answer(argv):
        print(text)
        sys.exit()
    return commandline.parse_flags(argv)


def run() -> None:
    """The command."""
    commandline.on_any_terminal(lambda: app.run(main, flags_parser=parse_flags))
