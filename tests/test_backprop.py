import chex
import jax
import jax.numpy as jnp
import pytest
import reference

import lrajax
from lrajax import layers

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_tanh": lambda h: jnp.clip(h, -1, 1),
    "relu": jax.nn.relu,
    "leaky_relu": lambda h: jnp.where(h > 0, h, 0.01 * h),
    "gelu": lambda h: h * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (h + 0.044715 * h**3))) / 2,
    "silu": lambda h: h / (1 + jnp.exp(-h)),
    "elu": lambda h: jnp.where(h > 0, h, jnp.expm1(h)),
    "softplus": jax.nn.softplus,
    "sine": jnp.sin,
    "identity": lambda h: h,
}


def output_loss(theta, batch, activation):
    """The summed negative log likelihood, in plain jnp and by way of log_softmax."""
    z = batch.x
    for l, layer in enumerate(theta):
        h = jnp.dot(z, layer["w"]) + layer["b"][None, :]
        z = ACTIVATIONS[activation](h)
        if l == len(theta) - 1:
            return -(batch.y * jax.nn.log_softmax(h)).sum()


def both(activation, dtype):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    algo = lrajax.backprop(network)
    params, batch = jax.tree.map(
        lambda a: a.astype(dtype), (reference.make_params(algo), reference.make_batch(network, 7))
    )

    @jax.jit
    def compute(params):
        _, updates = reference.compute(algo, params, batch)
        return updates.forward, jax.grad(output_loss)(params.forward, batch, activation)

    return compute(params)


def test_every_pointwise_activation_is_tested():
    by_hand = {"sign", "threshold", "sign_ste", "threshold_ste", "kwta", "divisive"}
    assert {*ACTIVATIONS, "softmax"} == set(layers.ACTIVATIONS) - by_hand  # of test_activations.py


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_grad_of_the_output_loss(activation):
    ours, grad = both(activation, jnp.float32)
    chex.assert_trees_all_close(ours, grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_grad_to_double_precision(activation):
    with jax.enable_x64(True):
        ours, grad = both(activation, jnp.float64)
        chex.assert_trees_all_close(ours, grad, rtol=1e-12, atol=1e-13)
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(ours))


def test_targets_are_what_the_errors_stand_for(network, batch):
    algo = lrajax.backprop(network)
    lambda_, _ = reference.compute(algo, reference.make_params(algo), batch)
    expected = [z - e for z, e in zip(lambda_.z[:-1], lambda_.errors[:-1], strict=True)]
    chex.assert_trees_all_close(lambda_.targets, (*expected, batch.y))
    chex.assert_trees_all_close(lambda_.errors[-1], lambda_.z[-1] - batch.y)
