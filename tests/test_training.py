import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import training
from lrajax.training import EpochMetrics, Metrics

NETWORK = lrajax.mlp((5, 4, 6, 3, 2))


def examples(size, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=size)
    x = 100 * np.eye(2, 5)[y] + rng.integers(100, size=(size, 5))
    return training.Examples(x.astype(np.uint8), y.astype(np.int32))


def made(name="lra_e", batch_size=4, optimizer=None, seed=0):
    """A rule, whose `init` takes no time to compile, an optimiser, a step and an epoch."""
    algo = lrajax.ALGORITHMS[name](NETWORK)
    params = reference.make_params(algo, seed)
    algo = algo._replace(init=lambda key: params)
    optimizer = optimizer or optax.adam(0.01)
    step = training.make_train_step(algo, optimizer)
    epoch = training.make_epoch(algo, step, batch_size=batch_size, num_classes=2, max_pixel=255.0)
    return algo, optimizer, step, epoch


@pytest.mark.parametrize("name", ["lra_e", "dtp_sigma"])
def test_step_is_the_rules_update_through_optax(name, key):
    algo, optimizer, step, _ = made(name, optimizer=optax.sgd(0.1, momentum=0.9))
    params, batch = reference.make_params(algo), reference.make_batch(NETWORK, 7)
    state = training.TrainState(params, optimizer.init(params), key, jnp.array(0))
    step = jax.jit(step)
    first, metrics = step(state, batch)
    second, _ = step(first, batch)

    lambda_, u = reference.compute(algo, params, batch, key)
    expected = jax.tree.map(lambda p, u: p - 0.1 * u, params, u)
    chex.assert_trees_all_close(first.params.forward, expected.forward, rtol=1e-5, atol=1e-6)
    _, v = reference.compute(algo, first.params, batch, key)
    expected = jax.tree.map(lambda p, u, v: p - 0.1 * (0.9 * u + v), first.params, u, v)
    chex.assert_trees_all_close(second.params.forward, expected.forward, rtol=1e-5, atol=1e-6)

    # metrics are those from before the update
    z = np.asarray(lambda_.z[-1])
    loss = -np.log(z[np.arange(7), np.arange(7) % 2]).mean()
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.error, 100 * (z.argmax(1) != np.arange(7) % 2).mean())


def test_an_optimiser_that_decays_weights_is_given_them(key):
    halve = optax.chain(optax.set_to_zero(), optax.add_decayed_weights(-0.5))
    algo, _, step, _ = made(optimizer=halve)
    state = training.init_state(algo, halve, key)
    after, _ = jax.jit(step)(state, reference.make_batch(NETWORK, 7))
    chex.assert_trees_all_close(after.params, jax.tree.map(lambda p: p / 2, state.params))


SHARING = {  # optimisers whose state begins with the parameters, or with zeros, shared
    "prodigy": optax.contrib.prodigy(),
    "dowg": optax.contrib.dowg(),
    "cocob": optax.contrib.cocob(),
    "mechanize": optax.contrib.mechanize(optax.sgd(0.1)),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=False),
}


@pytest.mark.parametrize("name", SHARING)
def test_a_run_may_be_donated_whatever_its_optimiser_keeps(name, key):
    algo, optimizer, step, epoch = made(optimizer=SHARING[name])
    algo = algo._replace(init=lambda key, rule=algo: reference.make_params(rule))
    sets = examples(8), examples(6, seed=1), examples(7, seed=2)
    kept, _ = epoch(training.init_run(algo, optimizer, key), *sets)
    donated, _ = jax.jit(epoch, donate_argnums=0)(training.init_run(algo, optimizer, key), *sets)
    chex.assert_trees_all_close(donated.state.params, kept.state.params, rtol=1e-4, atol=1e-6)
    state = training.init_state(algo, optimizer, key)
    jax.jit(step, donate_argnums=0)(state, reference.make_batch(NETWORK, 4))


LOOKING = {  # optimisers that look at the loss
    "reduce_on_plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "polyak_sgd": optax.polyak_sgd(),
    "lbfgs": optax.lbfgs(),
}


@pytest.mark.parametrize("name", LOOKING)
def test_an_optimiser_that_looks_at_the_loss_is_handed_it(name, key):
    """Backprop with the mean is the gradient of that loss: optax alone must agree."""
    algo, optimizer = lrajax.backprop(NETWORK, reduction="mean"), LOOKING[name]
    batch = reference.make_batch(NETWORK, 7)

    def loss(params):
        return algo.loss(batch.y, algo.predict(params, batch.x)).mean()

    def alone(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        deltas, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, deltas), state

    params = reference.make_params(algo)
    state = training.TrainState(params, optimizer.init(params), key, jnp.array(0))
    step, alone, opt_state = (
        jax.jit(training.make_train_step(algo, optimizer)),
        jax.jit(alone),
        state.opt_state,
    )
    for _ in range(4):
        state, _ = step(state, batch)
        params, opt_state = alone(params, opt_state)
    chex.assert_trees_all_close(state.params.forward, params.forward, rtol=1e-3, atol=1e-5)


def test_every_step_gets_a_new_key(key):
    keys = []
    algo = lrajax.backprop(NETWORK)

    def spy(params, batch, *, key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return algo.compute_targets(params, batch)

    _, optimizer, _, _ = made()
    step = training.make_train_step(algo._replace(compute_targets=spy), optimizer)
    params = reference.make_params(algo)
    state = training.TrainState(params, optimizer.init(params), key, jnp.array(0))
    for _ in range(3):
        state, _ = step(state, reference.make_batch(NETWORK, 7))
    assert len({*keys, tuple(jax.random.key_data(key).tolist())}) == 4


def counting_step(state, batch):
    """Counts visits to each example, whose pixel is its number, in place of parameters."""
    counts = state.params.at[batch.x[:, 0].astype(int)].add(1)
    return state._replace(params=counts), Metrics(batch.x.sum(), batch.y.sum())


@pytest.mark.parametrize(("size", "batch_size"), [(11, 4), (12, 4), (5, 5), (7, 1)])
def test_epoch_visits_every_example_at_most_once_and_drops_the_remainder(size, batch_size, key):
    numbered = training.Examples(np.arange(size, dtype=np.uint8)[:, None], np.zeros(size, int))
    epoch = jax.jit(training.make_train_epoch(counting_step, batch_size, num_classes=2))
    state = training.TrainState(jnp.zeros(size), (), key, jnp.array(0))
    visited = []
    for _ in range(4):
        state, metrics = epoch(state._replace(params=jnp.zeros(size)), numbered)
        assert state.params.max() == 1
        assert state.params.sum() == size - size % batch_size
        visited.append(np.flatnonzero(state.params))
        np.testing.assert_allclose(
            metrics.loss, visited[-1].sum() / (size // batch_size), rtol=1e-6
        )
        np.testing.assert_allclose(metrics.error, batch_size)
    if size % batch_size:
        assert any(not np.array_equal(visited[0], v) for v in visited[1:])


def test_an_epoch_is_shuffled_anew_each_time(key):
    def step(state, batch):
        """Appends the number on the example to a list of 8."""
        return state._replace(params=jnp.roll(state.params, -1).at[-1].set(batch.x[0, 0])), 0.0

    numbered = training.Examples(np.arange(8, dtype=np.uint8)[:, None], np.zeros(8, int))
    epoch = jax.jit(training.make_train_epoch(step, 1, num_classes=2))
    first, _ = epoch(training.TrainState(jnp.zeros(8), (), key, jnp.array(0)), numbered)
    second, _ = epoch(first, numbered)
    orders = [first.params.tolist(), second.params.tolist(), list(range(8))]
    assert all(sorted(order) == orders[2] for order in orders)
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_a_batch_larger_than_the_set_is_refused(key):
    epoch = training.make_train_epoch(counting_step, 6, num_classes=2)
    with pytest.raises(ValueError, match="batch_size=6 exceeds the training set of 5"):
        epoch(training.TrainState(jnp.zeros(5), (), key, jnp.array(0)), examples(5))


def test_no_examples_at_all_are_refused(key):
    with pytest.raises(ValueError, match="batch_size=0 must be a finite number, at least 1"):
        training.make_train_epoch(counting_step, 0, num_classes=2)
    algo = lrajax.backprop(NETWORK)
    with pytest.raises(ValueError, match="examples has none"):
        training.evaluate(algo, reference.make_params(algo), examples(0), 2)
    with pytest.raises(ValueError, match="chunk=0"):
        training.evaluate(algo, reference.make_params(algo), examples(3), 2, chunk=0)


def test_to_batch_scales_pixels_and_encodes_labels():
    few = training.Examples(np.array([[0, 255], [51, 102]], np.uint8), np.array([2, 0]))
    batch = training.to_batch(
        few._replace(x=jnp.array(few.x), y=jnp.array(few.y)), jnp.array([1, 0]), 3, 255.0
    )
    np.testing.assert_allclose(batch.x, [[0.2, 0.4], [0, 1]], rtol=1e-6)
    np.testing.assert_array_equal(batch.y, [[1, 0, 0], [0, 0, 1]])
    assert batch.x.dtype == batch.y.dtype == jnp.float32


@pytest.mark.parametrize("size", [1, 9, 10, 20, 23])
def test_evaluate_in_chunks_equals_the_plain_computation(size):
    algo = lrajax.backprop(NETWORK)
    params, few = reference.make_params(algo), examples(size)
    metrics = jax.jit(
        lambda p, e: training.evaluate(algo, p, e, num_classes=2, max_pixel=255.0, chunk=10)
    )(params, few)
    z = np.asarray(jax.jit(algo.predict)(params, few.x.astype(np.float32) / 255))
    np.testing.assert_allclose(metrics.loss, -np.log(z[np.arange(size), few.y]).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.error, 100 * (z.argmax(1) != few.y).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("valid_errors", "chosen"),
    [
        ([1.50000012, 1.5], 1),  # 3 mistakes of 200, both
        ([1.5, 1.50000012], 1),
        ([1.5, 1.0], 2),
        ([100.0, 99.5], 2),
        ([5.0, 3.0, 4.0], 2),
        ([5.0, 3.0, 3.0, 4.0], 2),  # the earlier of equals
        ([5.0, np.nan, 6.0], 1),
        ([np.nan, np.inf], 0),
        ([5.0, 4.0, -1.0], 2),  # epoch 3 diverges, below
    ],
)
def test_selection_keeps_the_earliest_lowest_and_never_a_diverged_one(valid_errors, chosen):
    best = training.Best({"w": jnp.zeros(2)}, jnp.array(0), jnp.array(jnp.inf), jnp.array(jnp.inf))
    for epoch, error in enumerate(valid_errors, 1):
        # the test error falls all along, and must not take part in the choice
        measured = Metrics(jnp.zeros(()), jnp.array(error)), Metrics(0.0, jnp.array(50.0 - epoch))
        params = {"w": jnp.array([epoch, jnp.inf if error == -1 else 1.0])}
        metrics = EpochMetrics(None, *measured)
        best = training.select_best(best, params, jnp.array(epoch), metrics, num_valid=200)
    assert best.epoch == chosen
    assert best.params["w"][0] == chosen
    assert best.valid_error == (valid_errors[chosen - 1] if chosen else np.inf)
    assert best.test_error == (50 - chosen if chosen else np.inf)


def test_a_tie_is_one_however_many_examples_there_are():
    """50 and 50.000004 % of 10,000 are the same 5,000 mistakes."""
    best = training.Best({}, jnp.array(1), jnp.nextafter(jnp.array(50.0), 51.0), jnp.array(1.0))
    metrics = EpochMetrics(None, *[Metrics(jnp.zeros(()), jnp.array(50.0))] * 2)
    later = training.select_best(best, {}, jnp.array(2), metrics, num_valid=10_000)
    assert later.epoch == 1


def test_evaluate_takes_host_arrays_outside_jit():
    """As `data.load` gives them."""
    algo = lrajax.backprop(NETWORK)
    params, held = reference.make_params(algo), examples(7)
    metrics = training.evaluate(algo, params, held, 2, 255.0)
    right = algo.predict(params, held.x / np.float32(255))[np.arange(7), held.y]
    np.testing.assert_allclose(metrics.loss, -np.log(right).mean(), rtol=1e-5)


def test_all_finite():
    assert training.all_finite({"a": jnp.ones(2), "b": jnp.zeros(())})
    assert not training.all_finite({"a": jnp.ones(2), "b": jnp.array([0, jnp.nan])})


def test_epoch_measures_the_new_parameters_and_selects(key):
    algo, optimizer, step, epoch = made()
    sets = examples(10), examples(6, seed=1), examples(7, seed=2)
    start = training.init_run(algo, optimizer, key)
    assert start.epoch == start.best.epoch == 0
    first, metrics = jax.jit(epoch)(start, *sets)
    train_epoch = training.make_train_epoch(step, 4, num_classes=2, max_pixel=255.0)
    state, train_metrics = jax.jit(train_epoch)(start.state, sets[0])
    chex.assert_trees_all_close(first.state.params, state.params, rtol=1e-6)
    chex.assert_trees_all_close(metrics.train, train_metrics, rtol=1e-6)
    for measured, few in ((metrics.valid, sets[1]), (metrics.test, sets[2])):
        on_device = jax.tree.map(jnp.array, few)
        expected = training.evaluate(algo, state.params, on_device, num_classes=2, max_pixel=255.0)
        chex.assert_trees_all_close(measured, expected, rtol=1e-5)
    assert first.epoch == first.best.epoch == 1
    chex.assert_trees_all_equal(first.best.params, first.state.params)
    assert first.best.valid_error == metrics.valid.error
    assert first.best.test_error == metrics.test.error


@pytest.fixture(scope="module")
def sets():
    return jax.tree.map(jnp.array, (examples(10), examples(6, seed=1), examples(7, seed=2)))


def numbers(run):
    return run.state.params, run.best, run.epoch


def test_vmapped_run_equals_single_runs_and_a_seed_gives_the_same_numbers(sets):
    starts = []
    for seed in (0, 1):
        algo, optimizer, _, epoch = made("dtp_sigma", seed=seed)
        starts.append(training.init_run(algo, optimizer, jax.random.key(seed)))
    single, several = jax.jit(epoch), jax.jit(jax.vmap(epoch, (0, None, None, None)))
    together = jax.tree.map(lambda *a: jnp.stack(a), *starts)
    alone, again = list(starts), list(starts)
    for _ in range(2):
        together, metrics = several(together, *sets)
        alone = [single(run, *sets)[0] for run in alone]
        again = [single(run, *sets)[0] for run in again]
    for i in (0, 1):
        ours = jax.tree.map(lambda a, i=i: a[i], numbers(together))
        chex.assert_trees_all_close(ours, numbers(alone[i]), rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_equal(numbers(alone[i]), numbers(again[i]))
    assert metrics.valid.error.shape == (2,)


def test_the_first_diverged_epoch_is_noted_and_never_selected(key, sets):
    algo, optimizer, step, _ = made()

    def poisoned(state, batch):
        """Parameters that turn NaN in the second epoch, of 2 steps as the others, and stay so."""
        state, metrics = step(state, batch)
        factor = jnp.where(state.step > 2, jnp.nan, 1.0)
        return state._replace(params=jax.tree.map(lambda p: p * factor, state.params)), metrics

    epoch = jax.jit(training.make_epoch(algo, poisoned, 4, num_classes=2, max_pixel=255.0))
    run = training.init_run(algo, optimizer, key)
    noted = []
    for _ in range(3):
        run, _ = epoch(run, *sets)
        noted.append(int(run.diverged_at))
    assert noted == [0, 2, 2]
    assert run.best.epoch == 1
    assert training.all_finite(run.best.params)


def test_an_epoch_compiles_once_and_its_buffers_can_be_donated(key, sets):
    algo, optimizer, _, epoch = made()
    chex.clear_trace_counter()
    donating = jax.jit(chex.assert_max_traces(epoch, n=1), donate_argnums=0)
    keeping = jax.jit(epoch)
    kept = training.init_run(algo, optimizer, key)
    fresh = algo._replace(init=lambda _: jax.tree.map(jnp.copy, kept.state.params))
    run = training.init_run(fresh, optimizer, key)
    for _ in range(3):
        given = jax.tree.leaves(run.state.params)
        run, _ = donating(run, *sets)
        kept, _ = keeping(kept, *sets)
        assert all(leaf.is_deleted() for leaf in given)
    chex.assert_trees_all_equal(numbers(run), numbers(kept))


@pytest.mark.parametrize("rule", ["lra_e", "dtp_sigma", "equil_prop"])
def test_epochs_in_double_precision_under_strict_promotion(rule):
    """As JAX_ENABLE_X64 and JAX_NUMPY_DTYPE_PROMOTION have every run of a process."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        algo, optimizer = lrajax.ALGORITHMS[rule](NETWORK), optax.sgd(0.1)
        step = training.make_train_step(algo, optimizer)
        epoch = jax.jit(training.make_epoch(algo, step, 4, 2, 255.0))
        run = training.init_run(algo, optimizer, jax.random.key(0))
        for number in (1, 2):
            before = jax.tree.map(jnp.result_type, run)
            run, metrics = epoch(run, examples(8), examples(6, seed=1), examples(7, seed=2))
            assert jax.tree.map(jnp.result_type, run) == before
            assert run.epoch == number
        assert run.best.epoch in (1, 2)
        assert run.state.params.forward[0]["w"].dtype == np.float64
        assert float(metrics.valid.error) >= float(run.best.valid_error)
