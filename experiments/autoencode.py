r"""Trains autoencoders (y = x) by LRA-E and by backprop; keeps what they make of some test images.

    python experiments/autoencode.py                              the embedded digits
    python experiments/autoencode.py --dataset=mnist --data_dir=FOLDER --out_dir=results

Writes OUT_DIR/autoencoder/RULE-OUTPUT.json for either rule and for Bernoulli and Gaussian outputs;
those that are there are not trained again. `python experiments/results.py --results=OUT_DIR
--out=OUT_DIR/RESULTS.md` draws them, OUT_DIR/figures/autoencoder.png.
"""

import lrajax_command

if __name__ == "__main__":
    lrajax_command.listen()  # before the seconds that imports take

import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from jaxtyping import Array
from tqdm import tqdm

import lrajax
from lrajax import data, initializers, networks, training
from lrajax.checks import at_least
from lrajax.runs import records
from lrajax.runs.commands import commandline
from lrajax.runs.experiment import Sets

FLAGS = flags.FlagValues()
DATASET = flags.DEFINE_string(
    "dataset", "digits", "digits, mnist or fashion_mnist", flag_values=FLAGS
)
DATA_DIR = commandline.define_path("data_dir", None, "folder with the data set's IDX files", FLAGS)
OUT_DIR = commandline.define_path("out_dir", "runs", "folder for the results", FLAGS)
EPOCHS = flags.DEFINE_integer("epochs", 20, "passes over the training set", flag_values=FLAGS)
SEEDS = flags.DEFINE_integer(
    "seeds", 3, "runs of each autoencoder, trained side by side", flag_values=FLAGS
)

SIZES = (256, 32)  # units of the encoder, the code last
BATCH_SIZE = 50
FOLDER = "autoencoder"  # of the results, within --out_dir
SHOWN = 10  # test images whose reconstructions are kept
LEARNING_RATE = 0.001  # of Adam, for both rules: the presets speak of classifiers
RULES = {
    "lra_e": {"w_init": initializers.GLOROT},
    "backprop": {},
}


class Run(NamedTuple):
    """One autoencoder in training.

    Attributes:
      state: the training state.
      best: the parameters of lowest validation loss so far.
      valid_loss: theirs, [].
    """

    state: training.TrainState
    best: lrajax.Params
    valid_loss: Array


class Autoencoder:
    """One rule on one kind of output: pure functions of a run."""

    def __init__(self, rule: str, output: str, dataset: data.Dataset):
        """Compiles nothing yet."""
        self.scale = {"num_classes": dataset.num_classes, "max_pixel": dataset.max_pixel}
        sets = Sets(dataset.train, dataset.valid, dataset.test)
        self.sets = jax.tree.map(jnp.asarray, sets)
        sizes = (dataset.train.x.shape[1], *SIZES)
        self.algo = lrajax.ALGORITHMS[rule](lrajax.autoencoder(sizes, output), **RULES[rule])
        self.optimizer = optax.adam(LEARNING_RATE)

    def start(self, seed: Array) -> Run:
        """The run before its first epoch."""
        state = training.init_state(self.algo, self.optimizer, jax.random.key(seed))
        return Run(state, state.params, jnp.array(jnp.inf))

    def epoch(self, run: Run) -> tuple[Run, Array]:
        """The run after an epoch, and its validation loss."""
        train_step = training.make_train_step(self.algo, self.optimizer)

        def step(state, batch):
            return train_step(state, lrajax.Batch(batch.x, batch.x))

        state, _ = training.make_train_epoch(step, BATCH_SIZE, **self.scale)(
            run.state, self.sets.train
        )
        loss = self.loss(state.params, self.pixels(self.sets.valid))
        old, new = Run(state, run.best, run.valid_loss), Run(state, state.params, loss)
        better = loss < run.valid_loss
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old), loss

    def result(self, run: Run) -> dict[str, Array]:
        """What the selected parameters reach on the test set, and what they make of some images."""
        x = self.pixels(self.sets.test)
        z = self.algo.predict(run.best, x)
        return {
            "test_loss": self.algo.loss(x, z).mean(),
            "mean_squared_error": jnp.square(x - z).mean(),
            "images": jnp.round(255 * x[:SHOWN]).astype(int),
            "reconstructions": jnp.round(255 * jnp.clip(z[:SHOWN], 0, 1)).astype(int),
        }

    def pixels(self, examples: data.Examples) -> Array:
        """All images of a set, [N, n_inputs]."""
        return training.to_batch(examples, jnp.arange(len(examples.y)), **self.scale).x

    def loss(self, params: lrajax.Params, x: Array) -> Array:
        """Mean loss of an image, []."""
        return self.algo.loss(x, self.algo.predict(params, x)).mean()


def train(autoencoder: Autoencoder, name: str) -> dict[str, Any]:
    """Trains all seeds; gives curves [epochs, seeds] and what the selected parameters reach."""
    run = jax.vmap(autoencoder.start)(jnp.arange(SEEDS.value))
    epoch = jax.jit(jax.vmap(autoencoder.epoch))
    curve = []
    for _ in tqdm(range(EPOCHS.value), name, leave=False):
        run, loss = epoch(run)
        curve.append(np.asarray(loss))
    found = jax.jit(jax.vmap(autoencoder.result))(run)
    # The images are the same for every seed; one seed's reconstructions are shown.
    shown = {key: found.pop(key)[0] for key in ("images", "reconstructions")}
    return {
        "valid_loss": records.rounded(curve),
        **{key: records.rounded(value, 6) for key, value in found.items()},
        **{key: np.asarray(value).tolist() for key, value in shown.items()},
    }


def path_of(rule: str, output: str) -> pathlib.Path:
    """Where a result is kept."""
    return pathlib.Path(OUT_DIR.value) / FOLDER / f"{rule}-{output}.json"


def settings_of(rule: str, output: str, dataset: data.Dataset) -> dict[str, Any]:
    """Everything that determines the numbers, as JSON has it."""
    return {
        "algo": rule,
        "output": output,
        "dataset": dataset.name,
        "image_shape": list(dataset.image_shape),
        "sizes": list(SIZES),
        "opt": "adam",
        "lr": LEARNING_RATE,
        "hyperparameters": {key: str(value) for key, value in RULES[rule].items()},
        "epochs": EPOCHS.value,
        "seeds": list(range(SEEDS.value)),
    }


def there(rule: str, output: str, dataset: data.Dataset) -> bool:
    """Whether a result is there already.

    Raises:
      ValueError: it was made with other settings, or is damaged.
    """
    mine = settings_of(rule, output, dataset)
    return records.recorded(path_of(rule, output), mine, {"settings": ()}) is not None


def main() -> None:
    """Trains what is not there."""
    try:
        at_least("epochs", EPOCHS.value, 1)
        at_least("seeds", SEEDS.value, 1)
        records.check_writable("out_dir", OUT_DIR.value, FOLDER)
        dataset = data.load(DATASET.value, DATA_DIR.value)
        pairs = list(itertools.product(RULES, networks.RECONSTRUCTIONS))
        missing = [pair for pair in pairs if not there(*pair, dataset)]
    except ValueError as error:
        commandline.fail(error, FLAGS)
    for rule, output in missing:
        result = train(Autoencoder(rule, output, dataset), f"{rule}-{output}")
        settings = settings_of(rule, output, dataset)
        records.write_json(
            path_of(rule, output), {"settings": settings, **records.versions(), **result}
        )
    print(f"{len(missing)} of {len(pairs)} autoencoders trained: {path_of('*', '*')}")


if __name__ == "__main__":
    commandline.run(main, FLAGS, __doc__)
