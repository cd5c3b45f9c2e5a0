"""One training run, shared by the experiment binaries: settings in, metrics out epoch by epoch.

`Settings` says everything that determines the numbers. `epochs` compiles an epoch once, for all
seeds together, and yields after each.
"""

import dataclasses
import inspect
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import presets

import lrajax
from lrajax import initializers, training
from lrajax._checks import at_least, one_of, positive
from lrajax.data import Dataset


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines a run's numbers.

    Attributes:
      algo: a key of `lrajax.ALGORITHMS`.
      opt: a key of `presets.OPTIMIZERS`.
      lr: learning rate λ, > 0.
      dataset: a name that `lrajax.data.load` takes.
      hidden_layers: number of hidden layers.
      width: units in each.
      activation: of the hidden layers.
      batch_size: examples in a mini-batch.
      epochs: passes over the training set.
      seeds: one run each, trained together; seed s gives the same run in any company.
      hyperparameters: arguments of the rule's factory; initialisers as text (`gaussian:0.05`).
      valid_size: examples held out for validation; None for the data set's default.
      split_seed: seed of the validation split.
    """

    algo: str
    opt: str
    lr: float
    dataset: str
    hidden_layers: int
    width: int
    activation: str
    batch_size: int
    epochs: int
    seeds: tuple[int, ...]
    hyperparameters: Mapping[str, Any]
    valid_size: int | None = None
    split_seed: int = 0

    def __post_init__(self):
        """Raises ValueError, naming the flag and the remedy, for settings that cannot be run."""
        one_of("opt", self.opt, presets.OPTIMIZERS)
        positive("lr", self.lr)
        for name in ("hidden_layers", "width", "batch_size", "epochs"):
            at_least(name, getattr(self, name), 1)
        for name in self.hyperparameters:
            check_owner(self.algo, name)
        self.make_algorithm(n_inputs=1, num_classes=2)

    def make_algorithm(self, n_inputs: int, num_classes: int) -> lrajax.Algorithm:
        """The rule on its network."""
        sizes = (n_inputs, *[self.width] * self.hidden_layers, num_classes)
        network = lrajax.mlp(sizes, self.activation)
        arguments = {
            name: initializers.parse(value, name) if name.endswith("_init") else value
            for name, value in self.hyperparameters.items()
        }
        return lrajax.ALGORITHMS[self.algo](network, **arguments)

    def make_optimizer(self) -> optax.GradientTransformation:
        """The optax optimiser."""
        return presets.OPTIMIZERS[self.opt](self.lr)


def defaults(algo: str) -> dict[str, Any]:
    """The hyperparameters of a rule's factory and their defaults, initialisers as text."""
    return {
        name: str(parameter.default) if name.endswith("_init") else parameter.default
        for name, parameter in inspect.signature(lrajax.ALGORITHMS[algo]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_owner(algo: str, name: str) -> None:
    """Raises ValueError if `name` is not a hyperparameter of the rule `algo`."""
    owners = [owner for owner in lrajax.ALGORITHMS if name in defaults(owner)]
    if algo not in owners:
        raise ValueError(
            f"{name}= is not a setting of algo={algo}, only of {', '.join(owners)}: drop it"
        )


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Where a run stands after an epoch; arrays have a leading axis over the seeds.

    Attributes:
      run: the run.
      metrics: training, validation and test metrics.
      seconds: time the epoch took, compilation included in the first.
      examples_per_second: training examples of all seeds over that time.
    """

    run: training.Run
    metrics: training.EpochMetrics
    seconds: float
    examples_per_second: float


class Experiment:
    """A run made ready: data on the device, rule and optimiser built."""

    def __init__(self, settings: Settings, dataset: Dataset):
        """Raises ValueError if the mini-batch is larger than the training set."""
        size = len(dataset.train.y)
        if settings.batch_size > size:
            raise ValueError(
                f"batch_size={settings.batch_size} exceeds the training set: "
                f"choose at most {size} for {dataset.name}"
            )
        self.settings = settings
        self.algo = settings.make_algorithm(dataset.train.x.shape[1], dataset.num_classes)
        self.optimizer = settings.make_optimizer()
        self.scale = {"num_classes": dataset.num_classes, "max_pixel": dataset.max_pixel}
        self.train, self.valid, self.test = (
            training.Examples(jnp.asarray(part.x), jnp.asarray(part.y))
            for part in (dataset.train, dataset.valid, dataset.test)
        )

    def start(self) -> training.Run:
        """The run before its first epoch, all seeds stacked."""
        keys = jnp.stack([jax.random.key(seed) for seed in self.settings.seeds])
        init = lambda key: training.init_run(self.algo, self.optimizer, key)  # noqa: E731
        return jax.jit(jax.vmap(init))(keys)

    def epochs(self, run: training.Run | None = None) -> Iterator[Epoch]:
        """Trains from `run` (default: the start) to the last epoch, yielding after each."""
        run = self.start() if run is None else run
        epoch = training.make_epoch(
            self.algo, self.optimizer, batch_size=self.settings.batch_size, **self.scale
        )
        compiled = jax.jit(jax.vmap(epoch, in_axes=(0, None, None, None)), donate_argnums=0)
        batches = len(self.train.y) // self.settings.batch_size
        examples = batches * self.settings.batch_size * len(self.settings.seeds)
        for _ in range(int(run.epoch[0]), self.settings.epochs):
            began = time.perf_counter()
            run, metrics = compiled(run, self.train, self.valid, self.test)
            metrics = jax.tree.map(np.asarray, metrics)
            seconds = time.perf_counter() - began
            yield Epoch(run, metrics, seconds, examples / seconds)

    def train_error(self, params: lrajax.Params) -> np.ndarray:
        """Error of stacked parameters over the whole training set in %, [n_seeds]."""
        evaluate = jax.vmap(
            lambda params: training.evaluate(self.algo, params, self.train, **self.scale)
        )
        return np.asarray(jax.jit(evaluate)(params).error)
