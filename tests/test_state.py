"""States of rules and of layers: kept beside the optimiser's, by the loop and by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import checkpoint, layers, steps, training

SIZES = (5, 4, 6, 3, 2)
KEY = jax.random.key(0)
KEPT = 0.75  # of a running mean, at each step


def centred(layer):
    """The layer fed by activities of mean 0 over the mini-batch: a norm with a running mean."""

    def pre(theta, z):
        mean = theta["mean"] if "mean" in theta else jax.lax.pmean(z, layers.EXAMPLES)
        return layer.pre(theta, z - mean)

    def remember(theta, state, z):
        del theta
        mean = jax.lax.pmean(z, layers.EXAMPLES)
        return {"mean": KEPT * state["mean"] + (1 - KEPT) * mean}

    return layer._replace(
        pre=pre,
        init_state=lambda theta: {"mean": jnp.zeros(layer.in_shape, theta["w"].dtype)},
        remember=remember,
    )


NETWORK = lrajax.mlp(SIZES)
CENTRED = NETWORK._replace(
    layers=tuple(centred(layer) if l in (0, 2) else layer for l, layer in enumerate(NETWORK.layers))
)


def made(rule, optimizer=None):
    """A rule with parameters that take no time to draw, and an optimiser with a state."""
    params = reference.make_params(rule)
    return rule._replace(init=lambda key: params), optimizer or optax.sgd(0.1, momentum=0.9)


def visits(rule):
    """The rule, counting in a state how often each example was seen, and steps by another."""

    def compute_targets(params, batch, *, key=None, state=None):
        lambda_ = rule.compute_targets(params, batch, key=key)
        if state is None:
            return lambda_
        seen = {"examples": state["examples"].at[batch.rows].add(1), "steps": state["steps"] + 1}
        # The state takes part, so that one forgotten shows in the parameters.
        errors = tuple(e / (1 + state["steps"]) for e in lambda_.errors)
        return lambda_._replace(state=seen, errors=errors)

    def init_state(params, num_examples):
        return {"examples": jnp.zeros(num_examples, int), "steps": jnp.zeros(())}

    return rule._replace(compute_targets=compute_targets, init_state=init_state)


def examples(size=12):
    rng = np.random.default_rng(0)
    x = rng.integers(200, size=(size, 5)).astype(np.uint8)
    return training.Examples(x, (np.arange(size) % 2).astype(np.int32))


def epoch_of(rule, optimizer, observe=None):
    step = training.make_train_step(rule, optimizer, observe)
    return training.make_epoch(rule, step, batch_size=4, num_classes=2, max_pixel=255.0)


@pytest.mark.parametrize("name", ["lra_e", "backprop"])
def test_a_layers_running_mean_is_that_of_numpy_and_optax_never_sees_it(name):
    rule, optimizer = made(lrajax.ALGORITHMS[name](CENTRED))
    state = training.init_state(rule, optimizer, KEY)
    step = jax.jit(training.make_train_step(rule, optimizer))
    lowest = np.zeros(5)
    for seed in range(3):
        batch = reference.make_batch(CENTRED, 7, seed)
        before = jax.eval_shape(lambda state: (state.params, state.opt_state), state)
        lambda_ = rule.compute_targets(state.params, batch, key=KEY)
        upper = KEPT * state.layer_states[2]["mean"] + (1 - KEPT) * lambda_.z[1].mean(axis=0)
        lowest = KEPT * lowest + (1 - KEPT) * np.asarray(batch.x).mean(axis=0)
        state, _ = step(state, batch)
        assert jax.eval_shape(lambda state: (state.params, state.opt_state), state) == before
        np.testing.assert_allclose(state.layer_states[0]["mean"], lowest, rtol=1e-5)
        np.testing.assert_allclose(state.layer_states[2]["mean"], upper, rtol=1e-4, atol=1e-6)
    assert state.layer_states[1] == ()


def test_prediction_takes_running_means_and_training_those_of_the_batch():
    rule, optimizer = made(lrajax.backprop(CENTRED))
    state = training.init_state(rule, optimizer, KEY)
    means = [np.linspace(0, 1, 5), (), np.linspace(-1, 1, 6), ()]
    state = state._replace(layer_states=tuple({"mean": m} if len(m) else () for m in means))
    batch = reference.make_batch(CENTRED, 7)

    def by_hand(means):
        z = np.asarray(batch.x)
        for l, theta in enumerate(state.params.forward):
            mean = z.mean(axis=0) if means is None else means[l] if len(means[l]) else 0
            mean = mean if l in (0, 2) else 0
            h = (z - mean) @ np.asarray(theta["w"]) + np.asarray(theta["b"])
            z = np.tanh(h) if l < 3 else reference.softmax(h.T).T
        return z

    predicted = rule.predict(training.to_predict(state), batch.x)
    np.testing.assert_allclose(predicted, by_hand(means), rtol=1e-4)
    trained = rule.compute_targets(state.params, batch).z[-1]
    np.testing.assert_allclose(trained, by_hand(None), rtol=1e-4)
    assert np.abs(predicted - trained).max() > 0.01


@pytest.mark.parametrize("name", lrajax.ALGORITHMS)
def test_every_rule_keeps_layer_states(name):
    rule, optimizer = made(lrajax.ALGORITHMS[name](CENTRED))
    state = jax.eval_shape(lambda: training.init_state(rule, optimizer, KEY))
    step = training.make_train_step(rule, optimizer)
    after, _ = jax.eval_shape(step, state, reference.make_batch(CENTRED, 7))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert [sorted(s) for s in after.layer_states] == [["mean"], [], ["mean"], []]
    jax.eval_shape(rule.predict, jax.eval_shape(training.to_predict, after), jnp.ones((3, 5)))


def test_a_rule_with_a_state_gets_it_and_its_examples_rows():
    rule, optimizer = made(visits(lrajax.backprop(NETWORK)))
    run = training.init_run(rule, optimizer, KEY, num_examples=10)
    epoch = jax.jit(epoch_of(rule, optimizer))
    for number in (1, 2):
        run, _ = epoch(run, *[examples(10)] * 3)
        seen = run.state.rule_state
        assert seen["examples"].sum() == 8 * number  # two of ten do not fill a mini-batch
        assert seen["examples"].max() <= number
        assert seen["steps"] == 2 * number


def both():
    """A rule with a state of its own on layers with states."""
    return made(visits(lrajax.lra_e(CENTRED)), optax.adam(0.01))


def test_states_are_mapped_over_seeds_and_resumed_from_a_checkpoint(tmp_path):
    rule, optimizer = both()
    parts = [examples()] * 3
    epoch = epoch_of(rule, optimizer)
    alone = [training.init_run(rule, optimizer, jax.random.key(seed), 12) for seed in (0, 1)]
    runs = jax.vmap(lambda seed: training.init_run(rule, optimizer, jax.random.key(seed), 12))(
        jnp.arange(2)
    )
    together = jax.jit(jax.vmap(epoch, (0, None, None, None)))
    first, _ = together(runs, *parts)
    checkpoint.save(tmp_path, 1, first)
    restored = checkpoint.restore(tmp_path, jax.eval_shape(lambda: runs)).tree
    second, _ = together(first, *parts)
    chex.assert_trees_all_equal(together(restored, *parts)[0], second)
    one = jax.jit(epoch)
    for i, run in enumerate(alone):
        for _ in range(2):
            run, _ = one(run, *parts)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], second)
        chex.assert_trees_all_close(
            checkpoint.plain(found), checkpoint.plain(run), rtol=1e-4, atol=1e-5
        )
        assert found.state.rule_state["examples"].tolist() == [2] * 12


def test_the_best_parameters_predict_by_themselves():
    rule, optimizer = both()
    run = training.init_run(rule, optimizer, KEY, 12)
    run, metrics = jax.jit(epoch_of(rule, optimizer))(run, *[examples()] * 3)
    assert run.best.epoch == 1
    chex.assert_trees_all_equal(run.best.params, training.to_predict(run.state))
    found = training.evaluate(rule, run.best.params, examples(), 2, 255.0)
    chex.assert_trees_all_close(found, metrics.valid, rtol=1e-5)


def test_rules_made_of_rules_pass_states_on():
    counting, plain = visits(lrajax.rfa(CENTRED)), lrajax.lra_e(CENTRED)
    for rule in (
        lrajax.by_layer([plain, counting, plain, counting]),
        lrajax.stochastic(lambda key: counting),
    ):
        rule, optimizer = made(rule)
        run = training.init_run(rule, optimizer, KEY, 12)
        run, _ = jax.jit(epoch_of(rule, optimizer))(run, *[examples()] * 3)
        state = run.state.rule_state
        assert (state[1] if isinstance(state, tuple) else state)["examples"].tolist() == [1] * 12
        assert [sorted(s) for s in run.state.layer_states] == [["mean"], [], ["mean"], []]
        rule.compute_targets(run.state.params, reference.make_batch(NETWORK, 7), key=KEY)


def test_without_a_state_nothing_is_kept():
    rule, optimizer = made(lrajax.lra_e(NETWORK))
    state = training.init_state(rule, optimizer, KEY)
    assert (state.rule_state, state.layer_states, state.observed) == ((), (), ())
    assert training.to_predict(state) is state.params
    assert steps.remember(NETWORK, state.params.forward, (), lrajax.Calculations(*[()] * 5)) == ()


def test_the_state_of_a_unit_of_several_layers_goes_to_each():
    theta = ({"w": 1}, {"w": 2}, {"part": {"w": 3}})
    state = ({"mean": 4}, (), {"part": {"mean": 5}})
    expected = ({"w": 1, "mean": 4}, {"w": 2}, {"part": {"w": 3, "mean": 5}})
    assert layers.recall(theta, state) == expected
