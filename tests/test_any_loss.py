"""Any loss with any output that it is defined for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import layers, losses, steps

LOSSES = {
    name: getattr(losses, name)
    for name in ("categorical", "bernoulli", "gaussian", "cauchy", "half_squared")
}
ACTIVATIONS = ("softmax", "sigmoid", "tanh", "identity", "softplus")
FITTING = {"categorical": ("softmax",), "bernoulli": ("softmax", "sigmoid")}
PAIRS = [(loss, act) for loss in LOSSES for act in ACTIVATIONS if act in FITTING.get(loss, (act,))]
MISFITS = [(loss, act) for loss in FITTING for act in ACTIVATIONS if act not in FITTING[loss]]
KEY = jax.random.key(0)


def network(loss, activation):
    hidden = lrajax.mlp((5, 4, 6, 3, 2)).layers[:-1]
    return lrajax.Network((*hidden, layers.dense(3, 2, activation)), LOSSES[loss])


@pytest.mark.parametrize(("loss", "activation"), PAIRS)
def test_backprop_is_the_gradient(loss, activation):
    net = network(loss, activation)
    rule = lrajax.backprop(net)
    params, batch = reference.make_params(rule), reference.make_batch(net, 7)

    def objective(forward):
        z = batch.x
        for layer, theta in zip(net.layers, forward, strict=True):
            z = layer.post(z @ theta["w"] + theta["b"][None])
        return LOSSES[loss].value(batch.y, z).sum()

    _, updates = reference.compute(rule, params, batch)
    expected = jax.grad(objective)(params.forward)
    for found, right in zip(
        jax.tree.leaves(updates.forward), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in lrajax.ALGORITHMS if name != "equil_prop"])
def test_every_rule_begins_with_the_gradient_at_the_output(name):
    net = network("cauchy", "tanh")
    rule = lrajax.ALGORITHMS[name](net)
    params, batch = reference.make_params(rule), reference.make_batch(net, 7)
    lambda_ = jax.jit(rule.compute_targets)(params, batch, key=KEY)
    gap = np.tanh(np.asarray(lambda_.h[-1])) - np.asarray(batch.y)
    slope = 1 - np.tanh(np.asarray(lambda_.h[-1])) ** 2
    expected = slope * 2 * gap / (1 + gap**2)
    np.testing.assert_allclose(lambda_.errors[-1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["predictive_coding", "dtp"])
def test_what_else_follows_from_the_output_does_too(name):
    """Predictive coding's output at relaxed states, and DTP's topmost hidden target."""
    net = network("gaussian", "sigmoid")
    arguments = {"predictive_coding": {"steps": 3}, "dtp": {"noise": 0.0}}[name]
    rule = lrajax.ALGORITHMS[name](net, **arguments)
    params, batch = reference.make_params(rule), reference.make_batch(net, 7)
    lambda_ = jax.jit(rule.compute_targets)(params, batch, key=KEY)
    top, theta = net.layers[-1], params.forward[-1]

    def loss(below):
        return losses.gaussian.value(batch.y, top.post(below @ theta["w"] + theta["b"][None])).sum()

    if name == "dtp":
        expected = lambda_.z[-2] - 0.1 * jax.grad(loss)(lambda_.z[-2])
        np.testing.assert_allclose(lambda_.targets[-2], expected, rtol=1e-4, atol=1e-6)
    else:
        expected = jax.grad(loss)(lambda_.targets[-2])
        found = lambda_.aux[0].deltas[-1] @ theta["w"].T
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["categorical", "bernoulli", "half_squared"])
def test_a_canonical_pair_is_fused(loss):
    """So a confident mistake keeps its error, which -y/z through a saturated output has not."""
    link = {"categorical": "softmax", "bernoulli": "sigmoid", "half_squared": "identity"}[loss]
    net = network(loss, link)
    h = jnp.array([[200.0, -200.0]])
    z = layers.post(net.layers[-1], h)
    batch = lrajax.Batch(h, jnp.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(steps.output_error(net, batch, h, z), z - batch.y)


@pytest.mark.parametrize(("loss", "activation"), MISFITS)
def test_a_loss_that_is_not_defined_for_the_output_is_refused(loss, activation):
    net = network(loss, activation)
    rule = lrajax.lra_e(net)
    params, batch = jax.eval_shape(rule.init, KEY), reference.make_batch(net, 7)
    link = {"categorical": "softmax", "bernoulli": "sigmoid"}[loss]
    with pytest.raises(ValueError, match=f"^network: its output_loss is not defined.*link, {link}"):
        jax.eval_shape(rule.compute_targets, params, batch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": lambda y, z: ((y - z) ** 2).sum()}, r"value gives \(\): make it \(4,\)"),
        ({"error": lambda y, z: (z - y).sum(axis=1)}, r"error gives \(4,\): make it \(4, 2\)"),
    ],
)
def test_a_loss_of_wrong_shape_is_refused(change, words):
    net = network("half_squared", "tanh")
    rule = lrajax.backprop(net._replace(output_loss=net.output_loss._replace(**change)))
    params, batch = jax.eval_shape(rule.init, KEY), reference.make_batch(net, 7)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(rule.compute_targets, params, batch)


def test_ones_own_loss_needs_no_more_than_two_functions():
    quartic = lrajax.Loss(
        value=lambda y, z: ((z - y) ** 4).sum(axis=1), error=lambda y, z: 4 * (z - y) ** 3
    )
    net = network("half_squared", "tanh")._replace(output_loss=quartic)
    rule = lrajax.backprop(net)
    params, batch = reference.make_params(rule), reference.make_batch(net, 7)
    lambda_ = rule.compute_targets(params, batch)
    expected = jax.grad(lambda h: quartic.value(batch.y, jnp.tanh(h)).sum())(lambda_.h[-1])
    np.testing.assert_allclose(lambda_.errors[-1], expected, rtol=1e-4, atol=1e-6)
