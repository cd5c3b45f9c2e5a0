r"""Trains a network with one learning rule.

    python experiments/train.py                                  LRA-E on the embedded digits
    python experiments/train.py --algo=dfa --dataset=mnist --data_dir=FOLDER --out_dir=runs/dfa
    python experiments/train.py --algo=lra_e --opt=adam --num_seeds=5

Prints, for each seed, the errors in % at the epoch of lowest validation error; --out_dir keeps
config.json, metrics.jsonl, summary.json and the best parameters.
"""

import sys
from typing import NoReturn

import presets
import records
import runs
from absl import app, flags, logging
from tqdm import tqdm

import lrajax
from lrajax import data
from lrajax._checks import at_least, one_of

ALGO = flags.DEFINE_string("algo", "lra_e", f"learning rule: {', '.join(lrajax.ALGORITHMS)}")
OPT = flags.DEFINE_string(
    "opt", None, f"{', '.join(presets.OPTIMIZERS)}; default: the paper's for the rule"
)
LR = flags.DEFINE_float("lr", None, "learning rate; default: the paper's for the optimiser")
DATASET = flags.DEFINE_string(
    "dataset", "digits", "digits (embedded), mnist, fashion_mnist or a prepared TFDS set"
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of IDX files, or TFDS's; default: LRAJAX_DATA_DIR, then TFDS's own"
)
VALID_SIZE = flags.DEFINE_integer("valid_size", None, "examples held out for validation")
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "seed of the validation split")
HIDDEN_LAYERS = flags.DEFINE_integer("hidden_layers", 3, "number of hidden layers")
WIDTH = flags.DEFINE_integer("width", 256, "units in each hidden layer")
ACTIVATION = flags.DEFINE_string("activation", "tanh", "of the hidden layers")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 50, "examples in a mini-batch")
EPOCHS = flags.DEFINE_integer("epochs", 100, "passes over the training set")
SEED = flags.DEFINE_integer("seed", 0, "seed of the first run")
NUM_SEEDS = flags.DEFINE_integer("num_seeds", 1, "runs trained together, seeds --seed and up")
OUT_DIR = flags.DEFINE_string("out_dir", None, "folder for the run's files; default: none kept")

# The rules' own settings: named as the factories' arguments, None leaves the rule's default.
HYPERPARAMETERS = [
    flags.DEFINE_float("beta", None, "lra_e: modulation of the displacement; equil_prop: nudge"),
    flags.DEFINE_float("gamma", None, "lra_e: rate of the error weights over the forward weights"),
    flags.DEFINE_string("local_loss", None, "lra_e: gaussian or cauchy"),
    flags.DEFINE_bool("derivative", None, "lra_e: updates with (V1) or without (V2) derivatives"),
    flags.DEFINE_float("noise", None, "dtp: standard deviation of the injected noise"),
    flags.DEFINE_float("alpha", None, "dtp_sigma: standard deviation of the topmost noise"),
    flags.DEFINE_float("target_rate", None, "dtp, dtp_sigma: step to the topmost hidden target"),
    flags.DEFINE_string("nudge", None, "equil_prop: random, centred or positive"),
    flags.DEFINE_integer("free_steps", None, "equil_prop: relaxation steps of the free phase"),
    flags.DEFINE_integer("nudged_steps", None, "equil_prop: relaxation steps of a nudged phase"),
    flags.DEFINE_float("step_size", None, "equil_prop: Euler step of the relaxation"),
    flags.DEFINE_float("tolerance", None, "equil_prop: largest move at which a phase has settled"),
    flags.DEFINE_multi_float(
        "rates", None, "equil_prop: factor on a layer's update; repeat it, first layer first"
    ),
    flags.DEFINE_string("reduction", None, "sum or mean of the updates over the mini-batch"),
    flags.DEFINE_string("w_init", None, "glorot, orthogonal[:GAIN] or gaussian:STD"),
    flags.DEFINE_string("e_init", None, "the same for feedback weights, where the rule has any"),
]


def settings_from_flags() -> runs.Settings:
    """Reads the flags; raises ValueError for what cannot be run."""
    given = {flag.name: flag.value for flag in HYPERPARAMETERS if flag.value is not None}
    one_of("algo", ALGO.value, lrajax.ALGORITHMS)
    at_least("num_seeds", NUM_SEEDS.value, 1)
    opt = OPT.value or presets.optimizer_name(ALGO.value)
    return runs.Settings(
        algo=ALGO.value,
        opt=opt,
        lr=presets.LEARNING_RATES.get(opt) if LR.value is None else LR.value,
        dataset=DATASET.value,
        hidden_layers=HIDDEN_LAYERS.value,
        width=WIDTH.value,
        activation=ACTIVATION.value,
        batch_size=BATCH_SIZE.value,
        epochs=EPOCHS.value,
        seeds=tuple(range(SEED.value, SEED.value + NUM_SEEDS.value)),
        hyperparameters={
            **runs.defaults(ALGO.value),
            **presets.HYPERPARAMETERS.get(ALGO.value, {}),
            **given,
        },
        valid_size=VALID_SIZE.value,
        split_seed=SPLIT_SEED.value,
    )


def train(experiment: runs.Experiment, folder: records.RunFolder | None) -> runs.Epoch:
    """Trains to the end behind a progress bar."""
    bar = tqdm(
        experiment.epochs(),
        total=experiment.settings.epochs,
        unit="epoch",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log file needs fewer lines
    )
    for epoch in bar:
        if folder:
            folder.write_epoch(epoch)
        bar.set_postfix_str(
            f"loss {epoch.metrics.train.loss.mean():.4f}, "
            f"valid {epoch.metrics.valid.error.mean():.2f} %, "
            f"{epoch.examples_per_second:,.0f} examples/s",
            refresh=False,
        )
    return epoch


def table(result: dict) -> str:
    """The summary as a short table."""
    names = ("train_error", "valid_error", "test_error")
    lines = [f"{'seed':>6}  {'epoch':>5}  {'train %':>7}  {'valid %':>7}  {'test %':>7}"]
    for i, seed in enumerate(result["seeds"]):
        cells = "  ".join(_cell(result[name][i]) for name in names)
        lines.append(f"{seed:>6}  {result['best_epoch'][i]:>5}  {cells}")
    if len(result["seeds"]) > 1:
        for statistic in ("mean", "std"):
            cells = "  ".join(_cell(result[f"{name}_{statistic}"]) for name in names)
            lines.append(f"{statistic:>6}  {'':>5}  {cells}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>7}"


def main(argv: list[str]) -> None:
    """Flags to data to compiled epochs to a table."""
    try:
        if len(argv) > 1:
            raise ValueError(f"{argv[1]!r} is not a flag: write --name=value")
        settings = settings_from_flags()
        folder = records.RunFolder(OUT_DIR.value, settings) if OUT_DIR.value else None
        dataset = data.load(
            settings.dataset,
            DATA_DIR.value,
            valid_size=settings.valid_size,
            split_seed=settings.split_seed,
        )
        experiment = runs.Experiment(settings, dataset)
        if folder:
            folder.create()
    except ValueError as error:
        fail(error)
    last = train(experiment, folder)
    best = last.run.best
    result = records.summary(settings, last, experiment.train_error(best.params))
    if folder:
        folder.write_result(result, best.params)
    print(f"{settings.algo}, {settings.opt}, {settings.dataset}: error at lowest validation error")
    print(table(result))


def fail(error: Exception) -> NoReturn:
    """Says in one line what is wrong with the command, and leaves with status 2."""
    message = " ".join(str(error).split())
    # The library names arguments; on the command line they are flags.
    name = message.partition("=")[0]
    print(f"train.py: {'--' if name in flags.FLAGS else ''}{message}", file=sys.stderr)
    sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's parser, with its errors on one line."""
    logging.set_verbosity(logging.ERROR)  # JAX's search for devices is no news
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
