"""The training loop as pure functions: step, epoch, evaluation, early-stopped selection.

Nothing here is jitted. `jax.jit(make_epoch(...))` compiles an epoch into one program;
`jax.vmap` of it over a `Run` with a leading axis trains many seeds at once on shared data.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from lrajax import steps
from lrajax.base import Algorithm, Batch, Calculations, IndexedBatch, Params, PyTree
from lrajax.checks import as_key, count
from lrajax.data import Examples, check_examples

# Steps in a pass of an epoch's scan. With two, the second writes its parameters over those that the
# first began from, which nothing reads any more; with one, XLA has to copy them in every step.
UNROLL = 2


class TrainState(NamedTuple):
    """What a training step turns into the next.

    Attributes:
      params: the rule's parameters.
      opt_state: the optax optimiser's state.
      key: source of shuffles and of noise.
      step: steps done, int32 []; numbers the keys that rules draw their noise from.
      rule_state: what the rule keeps from step to step, `()` for nothing.
      layer_states: what the layers keep, one entry a layer; `()` if none keeps anything.
      observed: what an observer of the steps keeps; `()` without one.
    """

    params: Params
    opt_state: PyTree
    key: PRNGKeyArray
    step: Array
    rule_state: PyTree = ()
    layer_states: tuple = ()
    observed: PyTree = ()


# (state after the step, Λ, updates) -> what the state is to keep as observed
Observer = Callable[[TrainState, Calculations, Params], PyTree]


class Best(NamedTuple):
    """The parameters of lowest validation error so far, and what goes with them.

    Attributes:
      params: the parameters as `predict` takes them, the layers' states among them.
      epoch: counted from 1; 0 before the first.
      valid_error: in %; 100 before the first.
      test_error: likewise.
    """

    params: Params
    epoch: Array
    valid_error: Array
    test_error: Array


class Run(NamedTuple):
    """Everything a training run carries from epoch to epoch.

    Attributes:
      state: the training state.
      epoch: epochs done, int32 [].
      best: the early-stopped selection.
      diverged_at: the first epoch that left a non-finite loss or parameter, int32 []; 0 for none.
    """

    state: TrainState
    epoch: Array
    best: Best
    diverged_at: Array


class Metrics(NamedTuple):
    """What a network's answers are worth.

    Attributes:
      loss: mean, in nats for the categorical, float32 [].
      error: of classification, in %, float32 [].
    """

    loss: Array
    error: Array


# (state, batch) -> (state, metrics before the update); the batch as the rule takes it
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


class EpochMetrics(NamedTuple):
    """Metrics of one epoch.

    Attributes:
      train: means over the epoch's mini-batches, each before its own update.
      valid: at the end of the epoch.
      test: likewise.
    """

    train: Metrics
    valid: Metrics
    test: Metrics


def init_state(
    algo: Algorithm,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    num_examples: int | None = None,
) -> TrainState:
    """The state before the first step; no two of its arrays share a buffer: it may be donated.

    Args:
      algo: the rule.
      optimizer: the optax optimiser.
      key: of everything that is drawn.
      num_examples: size of the training set, for a rule with a state of each example.
    """
    params_key, key = jax.random.split(as_key(key))
    params = algo.init(params_key)
    rule_state = () if algo.init_state is None else algo.init_state(params, num_examples)
    layer_states = steps.init_layer_states(algo.network, params.forward) if algo.network else ()
    # Some optimisers begin with the parameters themselves in their state.
    opt_state, rule_state, layer_states = _copied(
        (optimizer.init(params), rule_state, layer_states)
    )
    return TrainState(params, opt_state, key, jnp.array(0), rule_state, layer_states)


def to_predict(state: TrainState) -> Params:
    """The parameters as `predict` takes them, the layers' states among them."""
    return steps.recall(state.params, state.layer_states)


def init_run(
    algo: Algorithm,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    num_examples: int | None = None,
) -> Run:
    """The run before the first epoch, which may be donated too; see `init_state`."""
    state = init_state(algo, optimizer, key, num_examples)
    errors = jnp.full(2, 100.0, jnp.result_type(float))
    params = _copied(to_predict(state))
    best = Best(params, jnp.array(0), valid_error=errors[0], test_error=errors[1])
    return Run(state, jnp.array(0), best, diverged_at=jnp.array(0))


def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def measure(algo: Algorithm, y: Array, prediction: Array) -> Metrics:
    """Mean loss and error of predictions [B, n_classes] against one-hot labels."""
    wrong = prediction.argmax(axis=-1) != y.argmax(axis=-1)
    # Of half precision a mean over many examples would be worth little.
    half = jnp.finfo(prediction.dtype).bits < 32
    wide = prediction.astype(jnp.float32) if half else prediction
    return Metrics(algo.loss(y, wide).mean(), 100 * wrong.mean())


def make_train_step(
    algo: Algorithm, optimizer: optax.GradientTransformation, observe: Observer | None = None
) -> Step:
    """One step of a rule under an optax optimiser.

    Optimisers that look at the loss (`optax.contrib.reduce_on_plateau`, `optax.polyak_sgd`,
    `optax.lbfgs`) are handed the mini-batch's mean loss as `value` and `value_fn`, and the updates
    as `grad`: take a rule with `reduction="mean"` where the two are compared.

    Args:
      algo: the rule.
      optimizer: the optax optimiser.
      observe: sees what every step computes, and keeps of it what it likes.

    Returns:
      A pure function `(state, batch) -> (state, metrics before the update)`.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    wanted = _accepted(optimizer.update, ("value", "grad", "value_fn"))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # Numbered rather than split off, so that a rule without noise pays nothing for the key.
        key = jax.random.fold_in(state.key, state.step)
        kept = {} if algo.init_state is None else {"state": state.rule_state}
        lambda_ = algo.compute_targets(state.params, batch, key=key, **kept)
        updates = algo.calc_updates(state.params, lambda_)
        if algo.errors_first:
            updates = steps.once_known(lambda_.errors[0], updates)
        metrics = measure(algo, batch.y, lambda_.z[-1])

        def mean_loss(params: Params) -> Array:
            whole = steps.recall(params, state.layer_states)
            return algo.loss(batch.y, algo.predict(whole, batch.x)).mean()

        seen = {"value": metrics.loss, "grad": updates, "value_fn": mean_loss}
        more = {name: seen[name] for name in wanted}
        deltas, opt_state = optimizer.update(updates, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, deltas)
        states = state.layer_states
        if algo.network:
            states = steps.remember(algo.network, state.params.forward, states, lambda_)
        state = TrainState(
            params, opt_state, state.key, state.step + 1, lambda_.state, states, state.observed
        )
        if observe is not None:
            state = state._replace(observed=observe(state, lambda_, updates))
        return state, metrics

    return step


def _accepted(function: Callable, names: Sequence[str]) -> Sequence[str]:
    """Those of the names that a function takes; `optax.contrib.sam` says any and takes none."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [name for name in names if takes_any or name in parameters]


Standardize = Callable[[Array], Array]
Augment = Callable[[PRNGKeyArray, Array], Array]


def to_batch(
    examples: Examples,
    rows: Array,
    num_classes: int,
    max_pixel: float = 1.0,
    standardize: Standardize | None = None,
) -> Batch:
    """Rows of a set as a float32 batch: pixels divided by `max_pixel`, labels one-hot.

    Args:
      examples: x of any real dtype, y whole numbers.
      rows: which, int [B].
      num_classes: labels are in 0 .. num_classes - 1.
      max_pixel: what pixels are divided by.
      standardize: what is done to the quotients, as `data.standardizer` makes it.

    Raises:
      ValueError: other numbers of images and labels; labels, where they have values, outside the
        classes.
    """
    check_examples(examples, num_classes)
    # Arrays of the host, closed over, cannot be indexed by a traced row.
    x, y = (jnp.asarray(part)[rows] for part in examples)
    x = x.astype(jnp.float32) / max_pixel
    x = x if standardize is None else standardize(x)
    return Batch(x, jax.nn.one_hot(y.astype(jnp.int32), num_classes))


def make_train_epoch(
    step: Step,
    batch_size: int,
    num_classes: int,
    max_pixel: float = 1.0,
    standardize: Standardize | None = None,
    augment: Augment | None = None,
) -> Callable[[TrainState, Examples], tuple[TrainState, Metrics]]:
    """One pass over a shuffled training set, a scan over its mini-batches.

    Examples that do not fill a last mini-batch are left out; they differ from epoch to epoch. The
    arguments are `make_epoch`'s.

    Returns:
      A pure function `(state, examples) -> (state, mean metrics)`, which raises ValueError if the
      set is smaller than a mini-batch.

    Raises:
      ValueError: `batch_size` is below 1.
    """
    batch_size = count("batch_size", batch_size)

    def train_epoch(state: TrainState, examples: Examples) -> tuple[TrainState, Metrics]:
        size = len(examples.y)
        num_batches = size // batch_size
        if num_batches == 0:
            raise ValueError(f"batch_size={batch_size} exceeds the training set of {size} examples")
        shuffle_key, key = jax.random.split(state.key)
        rows = jax.random.permutation(shuffle_key, size)[: num_batches * batch_size]
        # 2, for a split makes its keys as `fold_in` does, of 0 and 1. One for each mini-batch.
        keys = augment and jax.random.split(jax.random.fold_in(state.key, 2), num_batches)
        has_state = bool(jax.tree.leaves(state.rule_state))

        def step_on(state: TrainState, xs: tuple[Array, PyTree]):
            rows, key = xs
            batch = to_batch(examples, rows, num_classes, max_pixel, standardize)
            if augment:
                batch = batch._replace(x=augment(key, batch.x))
            return step(state, IndexedBatch(*batch, rows) if has_state else batch)

        # Only the row numbers are shuffled: gathering a mini-batch at a time, inside the scan,
        # keeps one copy of the data however many seeds share it.
        state, metrics = jax.lax.scan(
            step_on,
            state._replace(key=key),
            (rows.reshape(num_batches, batch_size), keys),
            unroll=UNROLL,
        )
        return state, jax.tree.map(jnp.mean, metrics)

    return train_epoch


def evaluate(
    algo: Algorithm,
    params: Params,
    examples: Examples,
    num_classes: int,
    max_pixel: float = 1.0,
    standardize: Standardize | None = None,
    chunk: int = 1000,
) -> Metrics:
    """Loss and error over a whole set, `chunk` examples at a time.

    Raises:
      ValueError: there are no examples, or `chunk` is below 1.
    """
    chunk = count("chunk", chunk)
    size = len(examples.y)
    if size == 0:
        raise ValueError("examples has none: there is no error over an empty set")
    chunk = min(chunk, size)

    def of_rows(rows):
        batch = to_batch(examples, rows, num_classes, max_pixel, standardize)
        return measure(algo, batch.y, algo.predict(params, batch.x))

    whole = size - size % chunk
    metrics = jax.lax.map(of_rows, jnp.arange(whole).reshape(-1, chunk))
    mean = jax.tree.map(jnp.mean, metrics)
    if whole == size:
        return mean
    rest = of_rows(jnp.arange(whole, size))
    return jax.tree.map(lambda a, b: (a * whole + b * (size - whole)) / size, mean, rest)


def all_finite(tree: PyTree) -> Array:
    """Whether every number of a tree is finite, bool []."""
    # At once: of one after another XLA makes one operation, slowly where there are many.
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def select_best(
    best: Best, params: Params, epoch: Array, metrics: EpochMetrics, num_valid: int
) -> Best:
    """Keeps the parameters of fewest validation mistakes; the earlier of equals.

    Parameters that have diverged are never kept. The test error is carried along and takes no part
    in the choice.

    Args:
      best: the selection so far.
      params: at the end of the epoch.
      epoch: its number, from 1.
      metrics: its metrics.
      num_valid: examples in the validation set. A mean over chunks gives one number of mistakes as
        1.5 % or as 1.50000012 %, so mistakes are compared and not errors.
    """

    def mistakes(error: Array) -> Array:
        return jnp.round(error * (num_valid / 100))

    # In double precision the first errors are float64, those that are measured float32.
    dtype = jnp.result_type(best.valid_error)
    errors = (jnp.asarray(measured.error, dtype) for measured in (metrics.valid, metrics.test))
    new = Best(params, epoch, *errors)
    fewer = (best.epoch == 0) | (mistakes(new.valid_error) < mistakes(best.valid_error))
    better = fewer & all_finite((params, metrics))
    # No choice for each parameter: into every one of those XLA takes what `better` comes from.
    return jax.lax.cond(better, lambda: new, lambda: best)


def make_epoch(
    algo: Algorithm,
    step: Step,
    batch_size: int,
    num_classes: int,
    max_pixel: float = 1.0,
    standardize: Standardize | None = None,
    augment: Augment | None = None,
) -> Callable[[Run, Examples, Examples, Examples], tuple[Run, EpochMetrics]]:
    """A whole epoch: training, validation and test error, selection.

    Args:
      algo: the rule, which predicts.
      step: the training step, from `make_train_step` or one's own around it.
      batch_size: examples in a mini-batch.
      num_classes: classes that the labels are one-hot over.
      max_pixel: what pixels are divided by.
      standardize: what is done to the quotients of every batch, as `data.standardizer` makes it.
      augment: what is done to the x of training batches after that, with a key of the run and the
        mini-batch's own, as `data.augmentation` makes it.

    Returns:
      A pure function `(run, train, valid, test) -> (run, metrics)`.
    """
    train_epoch = make_train_epoch(step, batch_size, num_classes, max_pixel, standardize, augment)

    def epoch(run: Run, train: Examples, valid: Examples, test: Examples):
        state, train_metrics = train_epoch(run.state, train)
        params = to_predict(state)

        def measured(examples):
            return evaluate(algo, params, examples, num_classes, max_pixel, standardize)

        metrics = EpochMetrics(train_metrics, measured(valid), measured(test))
        number = run.epoch + 1
        best = select_best(run.best, params, number, metrics, len(valid.y))
        diverges = (run.diverged_at == 0) & ~all_finite((params, metrics))
        return Run(state, number, best, jnp.where(diverges, number, run.diverged_at)), metrics

    return epoch
