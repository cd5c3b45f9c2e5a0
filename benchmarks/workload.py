"""The training steps that are timed: rules through lrajax, and backprop through `jax.grad` alone.

A step is one mini-batch through rule and SGD. Many run in one `lax.scan` over distinct mini-batches
that lie on the device already, parameters and optimiser state carried, as in a real epoch.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

import lrajax
from lrajax import training
from lrajax.data import Examples

INPUTS, WIDTH, OUTPUTS, BATCH = 784, 256, 10, 50
DEPTHS = (3, 5, 8)
EPOCH_STEPS = 1160  # 58,000 training examples of MNIST
MAX_PIXEL = 255.0
# Small, so that no rule diverges on random labels: numbers that overflow take other code paths.
LEARNING_RATE = 1e-4
BASELINE = "jax.grad"


class Trainer(NamedTuple):
    """A way to train.

    Attributes:
      init: `key -> TrainState`.
      step: `(state, batch) -> (state, metrics)`, of which no metrics are asked for where only the
        step is timed.
    """

    init: Callable[[jax.Array], training.TrainState]
    step: Callable[[training.TrainState, lrajax.Batch], tuple[training.TrainState, Any]]


def sizes(depth: int, width: int = WIDTH) -> tuple[int, ...]:
    """Units of every layer of a network with `depth` hidden layers."""
    return (INPUTS, *[width] * depth, OUTPUTS)


def count_parameters(layer_sizes: Sequence[int]) -> int:
    """Forward weights and biases."""
    return sum((m + 1) * n for m, n in itertools.pairwise(layer_sizes))


def rule(
    name: str,
    layer_sizes: Sequence[int],
    optimizer: optax.GradientTransformation | None = None,
    **hyperparameters,
) -> Trainer:
    """A rule of lrajax, through the library's own training step."""
    optimizer = optimizer or optax.sgd(LEARNING_RATE)
    algo = lrajax.ALGORITHMS[name](lrajax.mlp(layer_sizes), **hyperparameters)

    def init(key):
        return training.init_state(algo, optimizer, key)

    return Trainer(init, training.make_train_step(algo, optimizer))


def plain_backprop(layer_sizes: Sequence[int]) -> Trainer:
    """Backprop as one writes it without lrajax: a loss, its gradient, SGD."""
    optimizer = optax.sgd(LEARNING_RATE)

    def init(key):
        # The weights of lrajax's backprop, which then must train to the same parameters.
        forward = rule("backprop", layer_sizes).init(key).params.forward
        params = [(layer["w"], layer["b"]) for layer in forward]
        return training.TrainState(params, optimizer.init(params), key, jnp.array(0))

    def loss(params, batch):
        z = batch.x
        for w, b in params[:-1]:
            z = jnp.tanh(z @ w + b)
        w, b = params[-1]
        return -(batch.y * jax.nn.log_softmax(z @ w + b)).sum()

    def step(state, batch):
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        deltas, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, deltas)
        state = training.TrainState(params, opt_state, state.key, state.step + 1)
        return state, value / len(batch.x)

    return Trainer(init, step)


def random_batches(count: int, size: int = BATCH, seed: int = 0) -> lrajax.Batch:
    """Distinct random mini-batches, x [count, size, 784] and one-hot y [count, size, 10]."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, size, INPUTS), np.float32)
    y = np.eye(OUTPUTS, dtype=np.float32)[rng.integers(OUTPUTS, size=(count, size))]
    return lrajax.Batch(jnp.asarray(x), jnp.asarray(y))


def random_examples(count: int, seed: int = 0) -> Examples:
    """Random images and labels in the types of a data set."""
    rng = np.random.default_rng(seed)
    x = rng.integers(256, size=(count, INPUTS), dtype=np.uint8)
    return Examples(jnp.asarray(x), jnp.asarray(rng.integers(OUTPUTS, size=count), jnp.int32))


def steps(trainer: Trainer) -> Callable[[training.TrainState, lrajax.Batch], training.TrainState]:
    """A scan of steps over mini-batches, to be compiled; metrics are not asked for."""

    def run(state, batches):
        def step(state, batch):
            return trainer.step(state, batch)[0], None

        return jax.lax.scan(step, state, batches, unroll=training.UNROLL)[0]

    return run


def epoch(trainer: Trainer) -> Callable:
    """The library's whole training epoch: shuffle, uint8 to float, steps, metrics."""
    return training.make_train_epoch(trainer.step, BATCH, OUTPUTS, MAX_PIXEL)


class Prepared(NamedTuple):
    """A program that is ready to be timed.

    Attributes:
      call: runs it to its end.
      program: as compiled.
    """

    call: Callable[[], None]
    program: jax.stages.Compiled


def prepare(function: Callable, trainer: Trainer, data: Any) -> Prepared:
    """Compiles `function(state, data)`.

    Raises:
      FloatingPointError: the training diverges; its time would mean little.
    """
    # Without optimisations: what is not timed need not be quick.
    init = jax.jit(trainer.init, compiler_options={"xla_backend_optimization_level": 0})
    state = init(jax.random.key(0))
    program = jax.jit(function).lower(state, data).compile()
    check_finite(program(state, data))
    return Prepared(lambda: jax.block_until_ready(program(state, data)), program)


def prepare_all(
    function_of: Callable[[Trainer], Callable], trainers: Mapping[str, Trainer], data: Any
) -> dict[str, Prepared]:
    """Compiles every trainer's function, see `prepare`."""
    return {
        name: prepare(function_of(trainer), trainer, data) for name, trainer in trainers.items()
    }


def step_cells(
    seconds: Mapping[str, np.ndarray], name: str, count: int = 1
) -> dict[str, timing.Spread]:
    """A table's columns on a trainer's step, of seconds for `count` of them, [repeats] each."""
    return {
        "step (µs)": timing.spread(seconds[name], 1e6 / count),
        "over jax.grad": timing.ratio(seconds[name], seconds[BASELINE]),
    }


def peak_bytes(program: jax.stages.Compiled, batches: lrajax.Batch) -> int | None:
    """Memory of the scan by the compiler's account, all mini-batches but one left out."""
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    data = sum(a.nbytes for a in batches) // batches.x.sharding.num_devices
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
        - data * (len(batches.x) - 1) // len(batches.x)
    )


def check_finite(tree: Any) -> None:
    """Raises FloatingPointError if a floating-point number of the tree is not finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise FloatingPointError("the timed training diverged: lower workload.LEARNING_RATE")
