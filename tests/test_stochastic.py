"""Rules on networks whose layers draw."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import diagnostics, layers, training
from lrajax.compose import split

SIZES = (5, 4, 6, 3, 2)  # those of conftest.py
KEY = jax.random.key(5)
every_rule = pytest.mark.parametrize("name", lrajax.ALGORITHMS)


def with_dropout(name, rate, key, **arguments):
    """A rule on the usual network with dropout on its hidden layers."""
    *hidden, output = lrajax.mlp(SIZES).layers
    dropped = (
        layers.dropout(layer, rate, layer_key)
        for layer, layer_key in zip(hidden, split(key, len(hidden)), strict=True)
    )
    network = lrajax.Network((*dropped, output), lrajax.losses.categorical)
    return lrajax.ALGORITHMS[name](network, **arguments)


def make(name, rate=0.5, **arguments):
    return lrajax.stochastic(lambda key: with_dropout(name, rate, key, **arguments))


@pytest.fixture(scope="module")
def batch(network):
    return reference.make_batch(network, 7)


def test_backprop_is_the_gradient_with_the_masks_that_were_drawn(batch):
    rule = make("backprop")
    params = reference.make_params(rule)
    lambda_, updates = reference.compute_whole(rule, params, batch, KEY)
    masks = [z / jnp.tanh(h) for h, z in zip(lambda_.h[:-1], lambda_.z[:-1], strict=True)]
    drawn = np.concatenate([np.ravel(mask) for mask in masks])
    np.testing.assert_allclose(drawn, np.where(drawn > 1, 2, 0), atol=1e-5)
    assert 0.3 < (drawn > 1).mean() < 0.7
    assert len(np.unique(np.concatenate(masks, axis=1) > 1, axis=0)) == 7  # one mask an example

    def loss(forward):
        z = batch.x
        for theta, mask in zip(forward[:-1], masks, strict=True):
            z = mask * jnp.tanh(z @ theta["w"] + theta["b"][None])
        logits = z @ forward[-1]["w"] + forward[-1]["b"][None]
        return -(batch.y * jax.nn.log_softmax(logits)).sum()

    grad = jax.jit(jax.grad(loss))(params.forward)
    chex.assert_trees_all_close(updates.forward, grad, rtol=1e-4, atol=1e-5)


@every_rule
def test_at_rate_0_it_is_the_rule_on_the_plain_network(name, batch):
    rule, plain = make(name, rate=0.0), lrajax.ALGORITHMS[name](lrajax.mlp(SIZES))
    params = reference.make_params(plain)
    lambda_, updates = reference.compute_whole(rule, params, batch, KEY)
    _, rule_key = jax.random.split(KEY)
    expected_lambda, expected = reference.compute_named(name, plain, params, batch, rule_key)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(lambda_.aux.aux, expected_lambda.aux, rtol=1e-4, atol=1e-5)


@every_rule
def test_masks_change_with_the_key_and_prediction_has_none(name, batch):
    rule, plain = make(name), lrajax.ALGORITHMS[name](lrajax.mlp(SIZES))
    params = reference.make_params(rule)
    compute = functools.partial(reference.compute_whole, rule)
    lambda_, updates = compute(params, batch, KEY)
    chex.assert_tree_all_finite(updates)
    chex.assert_trees_all_equal(compute(params, batch, KEY)[1], updates)
    if name != "equil_prop":  # its units have no activation that could be dropped
        assert not np.array_equal(compute(params, batch, jax.random.key(6))[0].z[0], lambda_.z[0])
    both = jax.jit(lambda params: [r.predict(params, batch.x) for r in (rule, plain)])
    chex.assert_trees_all_equal(*both(params))
    with pytest.raises(ValueError, match="key=None"):
        rule.compute_targets(params, batch)


def test_many_seeds_at_once_equal_one_by_one(batch):
    rule = make("lra_e")
    params = [reference.make_params(rule, seed) for seed in (0, 1)]
    keys = jax.random.split(KEY, 2)

    def update(params, key):
        return reference.compute(rule, params, batch, key)[1]

    stacked = jax.tree.map(lambda *a: jnp.array(np.stack(a)), *params)
    together = jax.jit(jax.vmap(update))(stacked, keys)
    for i in range(2):
        one = jax.tree.map(lambda a, i=i: a[i], together)
        chex.assert_trees_all_close(one, jax.jit(update)(params[i], keys[i]), rtol=1e-4, atol=1e-5)


def test_training_and_diagnostics_take_it(batch):
    rule, optimizer = make("lra_e", rate=0.2), optax.sgd(0.01)
    params = reference.make_params(rule)
    state = training.TrainState(params, optimizer.init(params), KEY, jnp.array(0))
    step = training.make_train_step(rule, optimizer, diagnostics.watch)
    many = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=2))
    state, metrics = many(diagnostics.begin_watch(state))
    assert not state.observed.any()
    assert np.isfinite(metrics.loss).all()

    # Both get the same masks: only so is the angle zero.
    same = make("backprop", reduction="mean")
    measure = jax.jit(
        lambda: diagnostics.update_angles_to_backprop(
            make("backprop"), same, reference.make_params(same), batch, key=KEY
        )
    )
    np.testing.assert_allclose(measure()[1], 0, atol=0.1)


def test_stochastic_binary_units_learn(batch):
    def with_bernoulli(key):
        first, second = lrajax.mlp((5, 8, 2)).layers
        network = lrajax.Network((layers.bernoulli(first, key), second), lrajax.losses.categorical)
        return lrajax.backprop(network)

    rule, optimizer = lrajax.stochastic(with_bernoulli), optax.adam(0.1)
    params = reference.make_params(rule)
    state = training.TrainState(params, optimizer.init(params), KEY, jnp.array(0))
    step = training.make_train_step(rule, optimizer)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=100))
    state, metrics = run(state)
    assert metrics.loss[-20:].mean() < 0.5 * metrics.loss[0]
    lambda_ = jax.jit(rule.compute_targets)(state.params, batch, key=KEY)
    assert set(np.unique(lambda_.z[0])) == {0, 1}


def test_split_gives_none_without_a_key():
    assert split(None, 3) == (None,) * 3
    chex.assert_trees_all_equal(split(KEY, 3), jax.random.split(KEY, 3))
