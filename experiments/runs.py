"""Training runs, shared by the experiment binaries: settings in, metrics out epoch by epoch.

`Settings` says everything that determines the numbers. An `Experiment` compiles one epoch of all
its runs, seeds times swept values, into one program.
"""

import dataclasses
import functools
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import devices
import jax
import jax.numpy as jnp
import numpy as np
import optax
import presets
from jax.experimental import multihost_utils

import lrajax
from lrajax import architectures, checkpoint, diagnostics, initializers, layers, training
from lrajax._checks import at_least, between, one_of, positive
from lrajax.architectures import ARCHITECTURES
from lrajax.data import Dataset
from lrajax.stochastic import split

# A TPU's default is bfloat16 and a GPU's TF32; `train.py --precision` chooses otherwise.
jax.config.update("jax_default_matmul_precision", "float32")

# Beyond these a number is a slip of the keyboard, and would fail late and obscurely.
LIMITS = {"hidden_layers": 1000, "width": 10**6, "batch_size": 10**9, "epochs": 2**31 - 1}
# What stands in for an activation without a derivative where a rule needs one.
SURROGATES = {"sign": "sign_ste", "threshold": "threshold_ste"}
BERNOULLI = "bernoulli"  # the activation whose units draw
SCHEDULES = ("constant", "cosine")  # of λ over a run
FIXED_FEEDBACK = ("rfa", "dfa", "sign_symmetric")  # their E stays as drawn, and does not decay
SMALLEST_SIDE = 4  # of an image, in pixels: networks for images halve it twice


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the numbers.

    Attributes:
      algo: a key of `lrajax.ALGORITHMS`.
      opt: a key of `presets.OPTIMIZERS`.
      lr: learning rate λ, > 0.
      dataset: a name that `lrajax.data.load` takes.
      hidden_layers: number of hidden layers; None for a network that has its own.
      width: units in each, or feature maps; None for a network that has its own.
      activation: of the hidden layers, as `lrajax.layers.parse_activation` takes it; or, of an MLP,
        "bernoulli": units that fire with the probability sigmoid(h).
      batch_size: examples in a mini-batch.
      epochs: passes over the training set.
      seeds: one run each, trained together; seed s gives the same run in any company.
      hyperparameters: arguments of the rule's factory; initialisers as text (`gaussian:0.05`).
      sweep: values of `lr` or of number-valued hyperparameters to combine with each other and with
        the seeds; they stand in for the fields above.
      valid_size: examples held out for validation; None for the data set's default.
      split_seed: seed of the validation split.
      network: a key of `architectures.ARCHITECTURES`.
      schedule: "constant", or "cosine": λ falls from `lr` to 0 over the run.
      weight_decay: share λ × `weight_decay` by which W, and an E that is learned, shrink at every
        step, >= 0, apart from what the optimiser makes of the updates (as in AdamW).
    """

    algo: str
    opt: str
    lr: float
    dataset: str
    hidden_layers: int | None
    width: int | None
    activation: str
    batch_size: int
    epochs: int
    seeds: tuple[int, ...]
    hyperparameters: Mapping[str, Any]
    sweep: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    valid_size: int | None = None
    split_seed: int = 0
    network: str = "mlp"
    schedule: str = "constant"
    weight_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError, naming the flag and the remedy, for settings that cannot be run."""
        one_of("opt", self.opt, presets.OPTIMIZERS)
        one_of("network", self.network, ARCHITECTURES)
        one_of("schedule", self.schedule, SCHEDULES)
        at_least("weight_decay", self.weight_decay, 0)
        fixed = [name for name, size in network_sizes(self.network).items() if size is None]
        if self.algo == "equil_prop" and self.activation != "tanh":
            raise ValueError(
                f"activation={self.activation} is not a setting of algo=equil_prop, whose units "
                "are clipped to [0, 1]: drop it"
            )
        if self.activation == BERNOULLI and self.network != "mlp":
            raise ValueError(f"activation={BERNOULLI} needs network=mlp, not {self.network}")
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if name not in fixed:
                between(name, value, 1, most)
            elif value is not None:
                raise ValueError(f"{name}= is not a setting of network={self.network}: drop it")
        for seed in (self.seeds[0], self.seeds[-1]):
            between("seed", seed, 0, 2**32 - 1)
        for name in self.hyperparameters:
            check_owner(self.algo, name)
        for combination in itertools.product(*self.sweep.values()):
            values = dict(zip(self.sweep, combination, strict=True))
            positive("lr", values.get("lr", self.lr))
            self.make_algorithm(SMALLEST_SIDE**2, 2, values)

    def runs(self) -> list[dict[str, float]]:
        """Seed and swept values of every run."""
        names = ("seed", *self.sweep)
        values = itertools.product(self.seeds, *self.sweep.values())
        return [dict(zip(names, combination, strict=True)) for combination in values]

    def swept(self, run: Mapping[str, float]) -> dict[str, float]:
        """The swept values of a run, without its seed."""
        return {name: run[name] for name in self.sweep}

    def make_network(self, n_inputs: int, num_classes: int) -> lrajax.Network:
        """The network.

        Raises:
          ValueError: it takes images, and the inputs are not a square grey one.
        """
        side = math.isqrt(n_inputs)
        square = side**2 == n_inputs and side >= SMALLEST_SIDE
        if self.network in architectures.FOR_IMAGES and not square:
            raise ValueError(
                f"network={self.network} takes square grey images, at least "
                f"{SMALLEST_SIDE} × {SMALLEST_SIDE}, not {n_inputs} inputs: choose mlp or resmlp"
            )
        sizes = {"hidden_layers": self.hidden_layers, "width": self.width}
        given = {name: size for name, size in sizes.items() if size is not None}
        image_shape = (side, side) if square else (n_inputs,)
        # Units that fire with a probability answer with it where nothing is drawn.
        activation = "sigmoid" if self.activation == BERNOULLI else self.activation
        make = ARCHITECTURES[self.network]
        return make(image_shape, num_classes, activation=activation, **given)

    def make_algorithm(
        self, n_inputs: int, num_classes: int, values: Mapping[str, Any]
    ) -> lrajax.Algorithm:
        """The rule on its network, with swept values that may be traced."""
        network = self.make_network(n_inputs, num_classes)
        arguments = {
            name: initializers.parse(value, name) if name.endswith("_init") else value
            for name, value in self.hyperparameters.items()
        }
        arguments.update({name: value for name, value in values.items() if name != "lr"})
        make = functools.partial(lrajax.ALGORITHMS[self.algo], **arguments)
        if self.activation != BERNOULLI:
            return make(network)
        return lrajax.stochastic(lambda key: make(_firing(network, key)))

    def make_reference(self, n_inputs: int, num_classes: int) -> lrajax.Algorithm:
        """Backprop on the same network, through a surrogate's slope where it has none."""
        activation = SURROGATES.get(self.activation, self.activation)
        changes = {"algo": "backprop", "activation": activation, "hyperparameters": {}, "sweep": {}}
        reference = dataclasses.replace(self, **changes)
        return reference.make_algorithm(n_inputs, num_classes, {})

    def make_optimizer(self, values: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
        """The optax optimiser of a run of so many steps; a swept learning rate may be traced."""
        lr = values.get("lr", self.lr)
        rate = lr if self.schedule == "constant" else optax.cosine_decay_schedule(lr, steps)
        optimizer = presets.OPTIMIZERS[self.opt](rate)
        if not self.weight_decay:
            return optimizer
        at = rate if callable(rate) else optax.constant_schedule(rate)
        decay = optax.add_decayed_weights(lambda step: -self.weight_decay * at(step), self._decays)
        return optax.chain(optimizer, decay)

    def _decays(self, params: lrajax.Params) -> lrajax.Params:
        """True for what decays: weights, but no bias and no E that stays as drawn."""
        weights = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "w", params)
        if self.algo not in FIXED_FEEDBACK:
            return weights
        return weights._replace(feedback=jax.tree.map(lambda _: False, weights.feedback))


def network_sizes(network: str) -> dict[str, int | None]:
    """The hidden layers and the width that a network has by default, None where it has its own."""
    parameters = inspect.signature(ARCHITECTURES[network]).parameters
    return {
        name: parameters[name].default if name in parameters else None
        for name in ("hidden_layers", "width")
    }


def _firing(network: lrajax.Network, key: jax.Array | None) -> lrajax.Network:
    """The network with Bernoulli units in its hidden layers, which draw from the key."""
    *hidden, output = network.layers
    units = map(layers.bernoulli, hidden, split(key, len(hidden)))
    return network._replace(layers=(*units, output))


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


class Experiment:
    """Runs made ready: data on the devices, rule and optimiser chosen."""

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        num_devices: int | None = None,
        check_finite: bool = False,
    ):
        """Raises ValueError if the mini-batch fits neither the training set nor the devices.

        Args:
          settings: of the runs.
          dataset: to train on.
          num_devices: to split the work over; None for as many as divide it.
          check_finite: whether epochs find the first non-finite number, at some cost in time.
        """
        size = len(dataset.train.y)
        if settings.batch_size > size:
            raise ValueError(
                f"batch_size={settings.batch_size} exceeds the training set: "
                f"choose at most {size} for {dataset.name}"
            )
        self.settings = settings
        self.check_finite = check_finite
        self.batches = size // settings.batch_size
        self.shape = (dataset.train.x.shape[1], dataset.num_classes)
        self.scale = {"num_classes": dataset.num_classes, "max_pixel": dataset.max_pixel}
        runs = settings.runs()
        self.placement = devices.place(num_devices, len(runs), settings.batch_size)
        self.parts = jax.device_put(
            (dataset.train, dataset.valid, dataset.test), self.placement.replicated
        )
        self._gather = jax.jit(lambda tree: tree, out_shardings=self.placement.replicated)
        self.seeds = np.array([run["seed"] for run in runs])
        self.values = {
            name: np.array([run[name] for run in runs], np.float32) for name in settings.sweep
        }
        devices.check_memory(jax.eval_shape(self.start), self.placement)

    def make(
        self, values: Mapping[str, Any]
    ) -> tuple[lrajax.Algorithm, optax.GradientTransformation]:
        """Rule and optimiser of one run."""
        algo = self.settings.make_algorithm(*self.shape, values)
        return algo, self.settings.make_optimizer(values, self.batches * self.settings.epochs)

    def start(self) -> training.Run:
        """The runs before their first epoch."""

        def init(seed, values):
            return training.init_run(*self.make(values), jax.random.key(seed))

        over_runs = jax.vmap(init)
        return jax.jit(over_runs, out_shardings=self.placement.runs)(self.seeds, self.values)

    def _over_runs(self, function: Callable, runs: Any, parts: Any) -> Any:
        """`function(run, values, parts)` of every run, side by side in one program."""
        if len(self.seeds) > 1:
            return jax.vmap(function, in_axes=(0, 0, None))(runs, self.values, parts)
        # A single run is not mapped: XLA's batched products are slower on CPUs, even of one.
        run, values = jax.tree.map(lambda leaf: leaf[0], (runs, self.values))
        return jax.tree.map(lambda leaf: leaf[None], function(run, values, parts))

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
        compiled = jax.jit(
            functools.partial(self._over_runs, self._epoch),
            donate_argnums=0,
            out_shardings=(self.placement.runs, self.placement.replicated),
        )
        examples = self.batches * self.settings.batch_size * len(self.seeds)
        for number in range(done + 1, self.settings.epochs + 1):
            began = time.perf_counter()
            run, report = compiled(run, self.parts)
            metrics, diverged_at, first = jax.tree.map(np.asarray, report)
            seconds = time.perf_counter() - began
            culprits = [diagnostics.first_nonfinite(run.state.params, steps) for steps in first]
            yield Epoch(number, run, metrics, diverged_at, culprits, seconds, examples / seconds)

    def _epoch(self, run: training.Run, values: Mapping[str, Any], parts):
        """One epoch of one run: the run, and what is said of it."""
        algo, optimizer = self.make(values)
        train_step = training.make_train_step(algo, optimizer)
        if self.check_finite:
            train_step = diagnostics.watch(algo, train_step)
            run = run._replace(state=diagnostics.begin_watch(run.state))

        def step(state, batch):
            return train_step(state, self.placement.split(batch))

        epoch = training.make_epoch(algo, step, self.settings.batch_size, **self.scale)
        run, metrics = epoch(run, *parts)
        if not self.check_finite:
            return run, (metrics, run.diverged_at, jnp.zeros(0, int))
        first = run.state.first
        run = run._replace(state=diagnostics.end_watch(run.state))
        return run, (metrics, run.diverged_at, first)

    def train_error(self, params: lrajax.Params) -> np.ndarray:
        """Error of every run's parameters over the whole training set in %, [n_runs]."""

        def evaluate(params, values, examples):
            algo, _ = self.make(values)
            return training.evaluate(algo, params, examples, **self.scale).error

        over_runs = functools.partial(self._over_runs, evaluate)
        compiled = jax.jit(over_runs, out_shardings=self.placement.replicated)
        return np.asarray(compiled(params, self.parts[0]))

    def on_host(self, tree: Any) -> Any:
        """A tree of arrays as NumPy's, gathered from all devices and processes, keys as data."""
        tree = checkpoint.plain(tree)
        if jax.process_count() > 1:
            tree = self._gather(tree)
        return jax.device_get(tree)
