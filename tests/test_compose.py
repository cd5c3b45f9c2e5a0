import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import diagnostics, layers, losses, training

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def mixture():
    """DFA below, LRA-E above."""
    network = lrajax.mlp((5, 4, 6, 3, 2))
    below, above = lrajax.dfa(network), lrajax.lra_e(network, beta=0.5)
    mixed = lrajax.by_layer([below, below, above, above])
    return below, above, mixed, reference.make_params(mixed), reference.make_batch(network, 7)


def own(params, i):
    """The parameters of the i-th distinct rule."""
    return params._replace(feedback=((), *(e[i] for e in params.feedback[1:])))


@pytest.mark.parametrize("name", ["lra_e", "dtp", "backprop"])
def test_a_rule_with_itself_is_that_rule(name, network, batch):
    rule = lrajax.ALGORITHMS[name](network)
    mixed = lrajax.by_layer([rule] * 4)
    alone = reference.make_params(rule)
    params = alone._replace(feedback=tuple((e,) if e else () for e in alone.feedback))
    chex.assert_trees_all_equal_shapes(jax.eval_shape(mixed.init, KEY), params)
    lambda_, updates = reference.compute(mixed, params, batch, KEY)
    expected_lambda, expected = reference.compute(rule, alone, batch, KEY)
    chex.assert_trees_all_equal(lambda_._replace(aux=()), expected_lambda._replace(aux=()))
    chex.assert_trees_all_equal(updates.forward, expected.forward)
    feedback = tuple((e,) if e else () for e in expected.feedback)
    chex.assert_trees_all_equal(updates.feedback, feedback)
    chex.assert_trees_all_equal(mixed.predict(params, batch.x), rule.predict(alone, batch.x))


def test_each_layer_follows_its_own_rule(mixture):
    below, above, mixed, params, batch = mixture
    found = reference.compute(mixed, params, batch)
    of_below = reference.compute(below, own(params, 0), batch)
    of_above = reference.compute(above, own(params, 1), batch)
    for l, (lambda_, updates) in enumerate((of_below, of_below, of_above, of_above)):
        for field in ("h", "z", "targets", "errors"):
            chex.assert_trees_all_equal(getattr(found[0], field)[l], getattr(lambda_, field)[l])
        chex.assert_trees_all_equal(found[1].forward[l], updates.forward[l])
    pairs = zip(of_below[1].feedback, of_above[1].feedback, strict=True)
    chex.assert_trees_all_equal(found[1].feedback, ((), *list(pairs)[1:]))
    assert mixed.loss is above.loss


def test_the_last_layers_rule_predicts_and_is_judged(mixture):
    below, above, *_, batch = mixture
    network = lrajax.mlp((5, 4, 6, 3, 2), activation="relu")
    last = lrajax.rfa(network)._replace(predict=lambda params, x: params.feedback, loss=lambda: 0)
    mixed = lrajax.by_layer([below, above, above, last])
    params = reference.make_params(mixed)
    chex.assert_trees_all_equal(mixed.predict(params, batch.x), own(params, 2).feedback)
    assert mixed.loss is last.loss
    assert mixed.network is network


def test_a_rules_feedback_may_be_a_plain_array(mixture):
    below, *_, batch = mixture

    def bare(params):
        return params._replace(feedback=tuple(e["w"] if e else () for e in params.feedback))

    def named(params):
        return params._replace(
            feedback=tuple({"w": e} if jax.tree.leaves(e) else () for e in params.feedback)
        )

    rule = below._replace(
        init=lambda key: bare(below.init(key)),
        compute_targets=lambda params, batch, key=None: below.compute_targets(named(params), batch),
        calc_updates=lambda params, lambda_: bare(below.calc_updates(named(params), lambda_)),
    )
    params, expected = (reference.make_params(of) for of in (rule, below))
    mixed = lrajax.by_layer([rule] * 4)
    alone = reference.compute(below, expected, batch)[1]
    wrapped = params._replace(feedback=((), *((e,) for e in params.feedback[1:])))
    found = reference.compute(mixed, wrapped, batch)[1]
    chex.assert_trees_all_equal(found.forward, alone.forward)
    chex.assert_trees_all_equal_shapes(jax.eval_shape(mixed.init, KEY), wrapped)
    assert "updates/feedback/1" in diagnostics.quantities(
        reference.compute(rule, params, batch)[0], params, params
    )


def test_jit_and_vmap(mixture):
    *_, mixed, params, batch = mixture
    _, expected = reference.compute(mixed, params, batch)

    def updates(params):
        return reference.compute(mixed, params, batch)[1]

    chex.assert_trees_all_close(jax.jit(updates)(params), expected, rtol=1e-4, atol=1e-5)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a / 2]), params)
    together = jax.jit(jax.vmap(updates))(stacked)
    for i, scale in enumerate((1, 2)):
        alone = updates(jax.tree.map(lambda a, scale=scale: a / scale, params))
        found = jax.tree.map(lambda a, i=i: a[i], together)
        chex.assert_trees_all_close(found, alone, rtol=1e-4, atol=1e-5)


def test_learns(mixture):
    *_, mixed, params, batch = mixture
    optimizer = optax.adam(0.01)
    step = training.make_train_step(mixed, optimizer)
    state = training.TrainState(params, optimizer.init(params), KEY, jnp.array(0))
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=150))
    _, metrics = run(state)
    assert metrics.loss[-1] < 0.3 * metrics.loss[0]


def test_the_last_layers_rule_answers(network, batch):
    first, last = lrajax.backprop(network), lrajax.equil_prop(network)
    mixed = lrajax.by_layer([first, first, first, last])
    params = reference.make_params(mixed)
    chex.assert_trees_all_equal(mixed.predict(params, batch.x), last.predict(params, batch.x))
    assert mixed.loss is last.loss


def test_two_rules_draw_from_different_keys(network):
    rules = [lrajax.rfa(network), lrajax.rfa(network)]
    made = lrajax.by_layer([rules[0], *[rules[1]] * 3]).init(KEY)
    for first, second in made.feedback[1:]:
        assert not (first["w"] == second["w"]).any()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda a, b: [], "rules is empty"),
        (lambda a, b: [a] * 3, "rules has 3 entries: give one for each of 4 layers"),
        (lambda a, b: [a, a, a, b], "rules are on different networks"),
    ],
)
def test_bad_rules_are_named(network, rules, message):
    other = lrajax.rfa(lrajax.mlp((5, 4, 6, 7, 2)))
    with pytest.raises(ValueError, match=message):
        lrajax.by_layer(rules(lrajax.rfa(network), other))


def read_by_rows(width=3):
    """A recurrent network for images of 3 × 2, unrolled, and whose weights each layer has."""
    return lrajax.networks.recurrent((3, 2), 4, width=width), (0, 0, 0, 3)


def test_tied_backprop_is_the_gradient_of_a_recurrent_network():
    network, owners = read_by_rows()
    rule = lrajax.compose.tied(lrajax.backprop(network), owners)
    params, batch = rule.init(jax.random.key(2)), reference.make_batch(network, 5)
    assert [len(jax.tree.leaves(entry)) for entry in params.forward] == [2, 0, 0, 2]

    def loss(cell, output):
        z = jnp.zeros((5, 3))
        for row in batch.x.reshape(5, 3, 2).swapaxes(0, 1):
            z = jnp.tanh(jnp.concatenate([z, row], axis=1) @ cell["w"] + cell["b"][None])
        log_p = jax.nn.log_softmax(z @ output["w"] + output["b"][None])
        return -(batch.y * log_p).sum()

    value_and_grad = jax.jit(jax.value_and_grad(loss, (0, 1)))
    expected, grad = value_and_grad(params.forward[0], params.forward[3])
    _, updates = reference.compute_whole(rule, params, batch)
    chex.assert_trees_all_close(updates.forward, (grad[0], (), (), grad[1]), rtol=1e-4, atol=1e-5)
    value = rule.loss(batch.y, rule.predict(params, batch.x)).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["lra_e", "dfa", "dtp"])
def test_tied_feedback_is_shared_where_it_has_one_shape(name):
    network, owners = read_by_rows()
    rule = lrajax.compose.tied(lrajax.ALGORITHMS[name](network), owners)
    params = jax.eval_shape(rule.init, jax.random.key(0))
    batch = reference.make_batch(network, 2)
    updates = jax.eval_shape(
        lambda p, key: reference.compute(rule, p, batch, key)[1], params, jax.random.key(1)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    entries = [bool(jax.tree.leaves(entry)) for entry in params.feedback]
    expected = {
        "lra_e": [False, True, False, True],
        "dfa": [False, True, True, True],  # from the output to activities of all sizes
        "dtp": [False, True, True, False],  # biases of all sizes
    }
    assert entries == expected[name]


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ((0, 0, 0), "owners has 3 entries: give one for each of 4"),
        ((0, 0, 1, 3), r"owners\[2\]=1 must be the first layer"),
        ((0, 0, 0, 0), r"owners\[3\]=0, whose parameters have other shapes"),
    ],
)
def test_bad_owners_are_named(owners, message):
    with pytest.raises(ValueError, match=message):
        lrajax.compose.tied(lrajax.backprop(read_by_rows()[0]), owners)


def test_layers_with_a_state_share_no_weights():
    normed = lrajax.layers.batch_norm(lrajax.dense(3, 3))
    network = lrajax.Network((normed, normed), lrajax.losses.half_squared)
    with pytest.raises(ValueError, match="a layer with a state cannot share"):
        lrajax.compose.tied(lrajax.backprop(network), (0, 0))
    plain = lrajax.dense(3, 3)
    below = lrajax.Network((normed, plain, plain), lrajax.losses.half_squared)
    lrajax.compose.tied(lrajax.backprop(below), (0, 1, 1))


@pytest.mark.parametrize("block", ["chain", "projection"])
def test_blocks_are_tied_and_trained(block):
    part = layers.dense(4, 4)
    shared = {
        "chain": layers.chain(part, part),
        "projection": layers.residual(part, projection=part),
    }[block]
    stack = (layers.dense(5, 4), shared, shared, layers.dense(4, 2, "softmax"))
    network = lrajax.Network(stack, losses.categorical)
    rule = lrajax.tied(lrajax.backprop(network), (0, 1, 1, 3))
    state = training.init_state(rule, optax.sgd(0.1), jax.random.key(0))
    after, _ = training.make_train_step(rule, optax.sgd(0.1))(
        state, reference.make_batch(network, 3)
    )
    assert after.params.forward[2] == ()
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
    assert min(jax.tree.leaves(moved)) > 0


def test_tied_feedback_of_a_mixture_gets_every_layers_update():
    network = lrajax.mlp((5, 4, 4, 4, 2))
    rule = lrajax.kolen_pollack(network, decay=0.0)
    owners = (0, 1, 1, 3)
    plain, mixed = lrajax.tied(rule, owners), lrajax.tied(lrajax.by_layer([rule] * 4), owners)
    params, batch = reference.make_params(plain), reference.make_batch(network, 3)
    entries = tuple((e,) if e else () for e in params.feedback)
    _, expected = reference.compute_whole(plain, params, batch)
    like = jax.eval_shape(mixed.init, jax.random.key(0)).feedback
    assert jax.tree.structure(like) == jax.tree.structure(entries)
    _, found = reference.compute_whole(mixed, params._replace(feedback=entries), batch)
    for ours, theirs in zip(found.feedback, expected.feedback, strict=True):
        chex.assert_trees_all_close(jax.tree.leaves(ours), jax.tree.leaves(theirs), rtol=1e-5)
