"""`Experiment`: one epoch of all runs, seeds times swept values, compiled into one program."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import lrajax
from lrajax import checkpoint, diagnostics, training
from lrajax.data import Dataset, Examples, augmentation, check_examples
from lrajax.runs import named, placement
from lrajax.runs.settings import Settings


class Sets(NamedTuple):
    """The parts of a data set.

    Attributes:
      train: what the updates are computed from.
      valid: what chooses the epoch.
      test: what is reported.
    """

    train: Examples
    valid: Examples
    test: Examples


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Where the runs stand after an epoch; arrays have a leading axis over the runs.

    Attributes:
      number: of the epoch, from 1.
      run: their state.
      metrics: training, validation and test metrics.
      diverged_at: the first epoch that left a non-finite number, [n_runs]; 0 for none.
      culprits: of each run, the first step and quantity of this epoch that was not finite; None
        where there is none, and without `check_finite`.
      seconds: time the epoch took, compilation included in the first.
      examples_per_second: training examples of all runs over that time.
    """

    number: int
    run: training.Run
    metrics: training.EpochMetrics
    diverged_at: np.ndarray
    culprits: list[str | None]
    seconds: float
    examples_per_second: float


def over_runs(function: Callable, runs: Any, values: Any, examples: Any) -> Any:
    """`function(run, values, examples)` of every run, side by side in one program.

    Args:
      function: of one run.
      runs: their states, or seeds, with a leading axis.
      values: what is traced of their settings, with the same axis.
      examples: the same for all.
    """
    if len(jax.tree.leaves(runs)[0]) > 1:
        return jax.vmap(function, in_axes=(0, 0, None))(runs, values, examples)
    # A single run is not mapped: XLA's batched products are slower on CPUs, even of one.
    run, value = jax.tree.map(lambda leaf: leaf[0], (runs, values))
    return jax.tree.map(lambda leaf: leaf[None], function(run, value, examples))


class Experiment:
    """Runs made ready: data on the devices, rule and optimiser chosen."""

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        num_devices: int | None = None,
        check_finite: bool = False,
        precision: str = "float32",
    ):
        """Raises ValueError if settings, data and devices do not fit together.

        Args:
          settings: of the runs.
          dataset: to train on.
          num_devices: to split the work over; None for as many as divide it.
          check_finite: whether epochs find the first non-finite number, at some cost in time.
          precision: of matrix products, as `jax.default_matmul_precision` takes it. JAX's own
            default is bfloat16 on a TPU and TF32 on a GPU.
        """
        settings.check()
        size = len(dataset.train.y)
        if settings.batch_size > size:
            raise ValueError(
                f"batch_size={settings.batch_size} exceeds the training set: "
                f"choose at most {size} for {dataset.name}"
            )
        for part in ("train", "valid", "test"):
            check_examples(getattr(dataset, part), dataset.num_classes, f"{dataset.name}: {part}")
        self.settings = settings
        self.check_finite = check_finite
        self.precision = precision
        self.num_examples = size
        self.batches = size // settings.batch_size
        self.shape = (dataset.image_shape, dataset.num_classes)
        self._check_network(dataset.name)
        self.scale = settings.scale(dataset)
        self.augment = (
            augmentation(settings.augment, dataset.image_shape) if settings.augment else None
        )
        runs = settings.runs()
        self.placement = placement.place(num_devices, len(runs), settings.batch_size)
        sets = Sets(dataset.train, dataset.valid, dataset.test)
        self.sets = jax.device_put(sets, self.placement.replicated)
        self._gather = jax.jit(lambda tree: tree, out_shardings=self.placement.replicated)
        self.seeds = np.array([run["seed"] for run in runs])
        self.values = {
            name: np.array([run[name] for run in runs], np.float32) for name in settings.sweep
        }
        # Compiled once, so that asking for the shapes and starting trace it once.
        self._start = self.compile(jax.vmap(self.init), out_shardings=self.placement.runs)
        placement.check_memory(jax.eval_shape(self.start), self.placement)

    def _check_network(self, dataset: str) -> None:
        """Raises ValueError if the network takes other inputs than there are, or has other outputs.

        Those of the library follow the data set; one's own need not.
        """
        image_shape, num_classes = self.shape
        first, *_, last = self.settings.make_network(*self.shape).layers
        made, needed = (first.in_shape, last.out_shape), ((math.prod(image_shape),), (num_classes,))
        if made != needed:
            raise ValueError(
                f"network={self.settings.network} goes from {made[0]} to {made[1]} and "
                f"dataset={dataset} from {needed[0]} to {needed[1]}: make it of the image_shape "
                "and num_classes that it is given; images come flat"
            )
        if named.is_own(self.settings.network):
            algo, _ = self.make(self.settings.swept(self.settings.runs()[0]))

            def answer():
                return algo.predict(algo.init(jax.random.key(0)), jnp.zeros((1, *needed[0])))

            try:
                jax.eval_shape(answer)
            except ValueError as error:
                raise ValueError(f"network={self.settings.network}: {error}") from error

    def make(
        self, values: Mapping[str, Any]
    ) -> tuple[lrajax.Algorithm, optax.GradientTransformation]:
        """Rule and optimiser of one run."""
        algo = self.settings.make_algorithm(*self.shape, values)
        network, steps = (
            self.settings.make_network(*self.shape),
            self.batches * self.settings.epochs,
        )
        return algo, self.settings.make_optimizer(values, steps, network)

    def compile(self, function: Callable, **options: Any) -> Callable:
        """`jax.jit`, with the experiment's precision."""
        compiled = jax.jit(function, **options)

        def call(*arguments):
            with jax.default_matmul_precision(self.precision):
                return compiled(*arguments)

        return call

    def init(self, seed: Any, values: Mapping[str, Any]) -> training.Run:
        """One run before its first epoch; seed and values may be traced."""
        return training.init_run(*self.make(values), jax.random.key(seed), self.num_examples)

    def start(self) -> training.Run:
        """The runs before their first epoch."""
        return self._start(self.seeds, self.values)

    def resume(self, done: int, run: training.Run | None) -> tuple[int, training.Run]:
        """Brings a run that the first process has read from its disk to all devices.

        Args:
          done: its epochs; 0 where there is none, and on the other processes.
          run: the run on the host, None where there is none.

        Returns:
          The same on every process; a new run where there was none.
        """
        like = jax.eval_shape(self.start)
        shapes = jax.eval_shape(checkpoint.plain, like)
        empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        arrays = jax.device_get(checkpoint.plain(run)) if run else empty
        if jax.process_count() > 1:
            done, arrays = multihost_utils.broadcast_one_to_all((np.int32(done), arrays))
        if not done:
            return 0, self.start()
        # As numbers: JAX cannot put keys on the devices of other processes.
        return int(done), checkpoint.wrap(jax.device_put(arrays, self.placement.runs), like)

    def epochs(self, run: training.Run | None = None, done: int = 0) -> Iterator[Epoch]:
        """Trains from `run`, `done` epochs old (default: the start), yielding after each epoch."""
        run = self.start() if run is None else run
        compiled = self.compile(
            lambda run, sets: over_runs(self.epoch, run, self.values, sets),
            donate_argnums=0,
            out_shardings=(self.placement.runs, self.placement.replicated),
        )
        examples = self.batches * self.settings.batch_size * len(self.seeds)
        for number in range(done + 1, self.settings.epochs + 1):
            began = time.perf_counter()
            run, report = compiled(run, self.sets)
            metrics, diverged_at, first = jax.tree.map(np.asarray, report)
            seconds = time.perf_counter() - began
            culprits = [diagnostics.first_nonfinite(run.state.params, steps) for steps in first]
            yield Epoch(number, run, metrics, diverged_at, culprits, seconds, examples / seconds)

    def epoch(self, run: training.Run, values: Mapping[str, Any], sets: Sets):
        """One epoch of one run, whose values may be traced: the run, and what is said of it.

        That is metrics, `diverged_at` and what `diagnostics.watch` saw.
        """
        algo, optimizer = self.make(values)
        observe = diagnostics.watch if self.check_finite else None
        train_step = training.make_train_step(algo, optimizer, observe)
        if self.check_finite:
            run = run._replace(state=diagnostics.begin_watch(run.state))

        def step(state, batch):
            return train_step(state, self.placement.split(batch))

        epoch = training.make_epoch(
            algo, step, self.settings.batch_size, **self.scale, augment=self.augment
        )
        run, metrics = epoch(run, *sets)
        if not self.check_finite:
            return run, (metrics, run.diverged_at, jnp.zeros(0, int))
        first = run.state.observed
        run = run._replace(state=diagnostics.end_watch(run.state))
        return run, (metrics, run.diverged_at, first)

    def train_error(self, params: lrajax.Params) -> np.ndarray:
        """Error of every run's parameters over the whole training set in %, [n_runs]."""

        def evaluate(params, values, examples):
            algo, _ = self.make(values)
            return training.evaluate(algo, params, examples, **self.scale).error

        compiled = self.compile(
            lambda params, train: over_runs(evaluate, params, self.values, train),
            out_shardings=self.placement.replicated,
        )
        return np.asarray(compiled(params, self.sets.train))

    def on_host(self, tree: Any) -> Any:
        """A tree of arrays as NumPy's, gathered from all devices and processes; keys stay keys."""
        arrays = checkpoint.plain(tree)
        if jax.process_count() > 1:
            arrays = self._gather(arrays)
        return checkpoint.wrap(jax.device_get(arrays), tree)
