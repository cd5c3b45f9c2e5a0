"""What is plainly meant is taken; what is not is refused in a line that names the argument."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import checks, initializers, layers, training

NETWORK = lrajax.mlp((5, 4, 3, 2))
EVERY = pytest.mark.parametrize("name", lrajax.ALGORITHMS)


def update(algo, key=7):
    return update_of(algo, algo.init(0), reference.make_batch(NETWORK, 3), key)


def update_of(algo, params, batch, key=1):
    @jax.jit
    def compute(params):
        return algo.calc_updates(params, algo.compute_targets(params, batch, key=key))

    return compute(params)


@EVERY
def test_text_for_an_initialiser_and_a_number_for_a_key(name):
    meant = lrajax.ALGORITHMS[name](NETWORK, w_init="gaussian:0.3")
    written = lrajax.ALGORITHMS[name](NETWORK, w_init=initializers.gaussian(0.3))
    chex.assert_trees_all_equal(meant.init(0), written.init(jax.random.key(0)))
    chex.assert_trees_all_equal(update(meant, 7), update(written, jax.random.key(7)))


def test_text_for_a_number_and_floats_for_counts():
    for meant, written in (
        (lrajax.lra_e(NETWORK, beta="1e-3"), lrajax.lra_e(NETWORK, beta=1e-3)),
        (lrajax.lra_e(NETWORK, derivative=0), lrajax.lra_e(NETWORK, derivative=False)),
        (
            lrajax.predictive_coding(NETWORK, steps=3.0),
            lrajax.predictive_coding(NETWORK, steps=3),
        ),
        (lrajax.lra_e(lrajax.mlp((5, 4.0, "3", 2))), lrajax.lra_e(NETWORK)),
        (lrajax.lra_e(lrajax.mlp((5, 4, 3, 2), activation=jnp.tanh)), lrajax.lra_e(NETWORK)),
    ):
        chex.assert_trees_all_equal(update(meant), update(written))
    params = training.init_state(lrajax.rfa(NETWORK), lrajax.normalize_updates(), 3).params
    assert len(params.forward) == 3


@EVERY
def test_what_is_no_network_is_named(name):
    with pytest.raises(ValueError, match=r"^network=\(16, 8, 4\) must be a lrajax.Network: write"):
        lrajax.ALGORITHMS[name]((16, 8, 4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lrajax.predictive_coding(NETWORK, steps=2.5), "steps=2.5 must be a whole number"),
        (lambda: lrajax.predictive_coding(NETWORK, steps=True), "steps=True must be a whole"),
        (lambda: lrajax.lra_e(NETWORK, beta="small"), "beta='small' must be a number"),
        (lambda: lrajax.lra_e(NETWORK, beta=None), "beta=None must be a number"),
        (lambda: lrajax.lra_e(NETWORK, derivative="no"), "derivative='no' must be True or False"),
        (lambda: lrajax.lra_e(NETWORK, local_loss=None), "local_loss=None must be a text"),
        (lambda: lrajax.lra_e(NETWORK, w_init="glorott"), "w_init='glorott' is unknown: did you"),
        (lambda: lrajax.lra_e(NETWORK, w_init=3), "w_init=3 must be a function"),
        (lambda: lrajax.equil_prop(NETWORK, tolerance="x"), "tolerance='x' must be a number"),
        (lambda: lrajax.lra_e(NETWORK).init("0"), "key='0' is no key of random numbers: write"),
        (lambda: lrajax.mlp((16, 8.5, 4)), "sizes=8.5 must be a whole number"),
        (lambda: lrajax.mlp((16, None, 4)), "sizes=None must be a number"),
        (lambda: lrajax.mlp(16), "sizes=16 must be several whole numbers"),
        (lambda: lrajax.mlp("16,8,4"), "sizes='16,8,4' must be several whole numbers"),
        (lambda: lrajax.mlp((6, 8, 4), activation=None), "activation=None must be a text or a fun"),
        (lambda: layers.dense(8.5, 4), "n_in=8.5 must be a whole number"),
        (lambda: layers.conv((4, 4, 1), 2.5, 3), "features=2.5 must be a whole number"),
        (lambda: training.make_epoch(None, None, 2.5, 4), "batch_size=2.5 must be a whole number"),
    ],
)
def test_what_cannot_be_meant_is_named_at_once(make, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}[^\n]*$"):
        make()


@EVERY
def test_labels_of_float64_beside_parameters_of_float32(name):
    algo = lrajax.ALGORITHMS[name](NETWORK)
    params, batch = reference.make_params(algo), reference.make_batch(NETWORK, 3)
    expected = update_of(algo, params, batch)
    with jax.enable_x64(True):
        wide = batch._replace(y=np.asarray(batch.y, np.float64))
        chex.assert_trees_all_close(update_of(algo, params, wide), expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_no_examples_give_no_update(name):
    algo = lrajax.ALGORITHMS[name](NETWORK, reduction="sum", **lrajax.RULES[name].plain)
    params = reference.make_params(algo)
    forward = update_of(algo, params, lrajax.Batch(jnp.zeros((0, 5)), jnp.zeros((0, 2)))).forward
    chex.assert_trees_all_equal(forward, jax.tree.map(np.zeros_like, params.forward))


def test_a_step_can_be_exported_and_stored():
    pytest.importorskip("flatbuffers")
    algo, optimizer = lrajax.lra_e(NETWORK), optax.sgd(0.1)
    state = training.init_state(algo, optimizer, jax.random.key(0))
    state = state._replace(key=jax.random.key_data(state.key), opt_state=())
    batch = reference.make_batch(NETWORK, 3)

    def step(state, batch):
        lambda_ = algo.compute_targets(state.params, batch)
        updates = algo.calc_updates(state.params, lambda_)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, state.params, updates)
        return state._replace(params=params), lambda_

    stored = jax.export.export(jax.jit(step))(state, batch).serialize()
    found = jax.export.deserialize(bytearray(stored)).call(state, batch)
    chex.assert_trees_all_close(found, jax.jit(step)(state, batch))
    assert isinstance(found[0].params, lrajax.Params)
    assert isinstance(found[1], lrajax.Calculations)


@EVERY
def test_a_rule_survives_cloudpickle(name):
    cloudpickle = pytest.importorskip("cloudpickle")
    algo = lrajax.ALGORITHMS[name](NETWORK)
    copy = cloudpickle.loads(cloudpickle.dumps(algo))
    np.testing.assert_array_equal(
        *(rule.predict(algo.init(0), jnp.ones((2, 5))) for rule in (algo, copy))
    )


BOUNDS = [  # a check, what is just allowed, what is just not
    (checks.at_least, (1,), 1, 0.9999999),
    (checks.between, (0, 2), 0, -1e-30),
    (checks.between, (0, 2), 2, 2.0000002),
    (checks.below, (1,), 0.9999999, 1),
    (checks.positive, (), 1e-30, 0),
]


@pytest.mark.parametrize(("check", "bounds", "allowed", "refused"), BOUNDS)
def test_bounds_are_where_they_are_said_to_be(check, bounds, allowed, refused):
    check("beta", allowed, *bounds)
    with pytest.raises(ValueError, match=f"beta={refused}"):
        check("beta", refused, *bounds)


def documented_bounds():
    """Of hyperparameters whose description says ">= 1", "< 1" or "in (0, 1]": allowed, refused."""
    for rule in lrajax.RULES.values():
        for name, one in rule.hyperparameters.items():
            for least in map(int, re.findall(r">= (\d+)", one.about)):
                yield rule.name, name, least, least - 1 if one.type is int else least - 1e-6
            for most in map(int, re.findall(r"< (\d+)", one.about)):
                yield rule.name, name, most - 1e-6, float(most)
            for least, most in re.findall(r"in \((\d), (\d)\]", one.about):
                yield rule.name, name, int(most), float(most) + 1e-6
                yield rule.name, name, float(least) + 1e-6, float(least)


@pytest.mark.filterwarnings("ignore:steps=")  # too few to teach the lowest layer
@pytest.mark.parametrize(("rule", "name", "allowed", "refused"), [*documented_bounds()])
def test_hyperparameters_are_bound_where_their_description_says(rule, name, allowed, refused):
    make, network = lrajax.ALGORITHMS[rule], lrajax.mlp((5, 4, 6, 3, 2))
    make(network, **{name: allowed})
    with pytest.raises(ValueError, match=f"{name}="):
        make(network, **{name: refused})
