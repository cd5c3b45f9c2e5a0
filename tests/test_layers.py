import chex
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jaxtyping import TypeCheckError

from lrajax import layers, steps

RNG = np.random.default_rng(0)
B, N_IN, N_OUT = 5, 3, 4
W, BIAS = RNG.normal(size=(N_IN, N_OUT)), RNG.normal(size=N_OUT)
Z, DELTA, DOWN = (RNG.normal(size=(B, n)) for n in (N_IN, N_OUT, N_IN))
THETA = {"w": jnp.array(W, float), "b": jnp.array(BIAS, float)}
LAYER = layers.dense(N_IN, N_OUT)


def close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_dense_pre_activity():
    close(layers.pre(LAYER, THETA, Z), Z @ W + BIAS[None, :])


@pytest.mark.parametrize("activation", reference.PHI)
def test_activation_and_its_derivative(activation):
    layer = layers.dense(N_IN, N_OUT, activation)
    phi, slope = reference.PHI[activation]
    close(layers.post(layer, DELTA), phi(DELTA))
    error = DELTA[::-1]
    close(
        layers.vjp_post(layer, jnp.array(DELTA, float), jnp.array(error, float)),
        error * slope(DELTA),
    )


def test_softmax_and_its_jacobian():
    layer = layers.dense(N_IN, N_OUT, "softmax")
    h, error = jnp.array(DELTA, float), DELTA[::-1]
    z = reference.softmax(DELTA.T).T
    close(layers.post(layer, h), z)
    expected = [(np.diag(p) - np.outer(p, p)) @ e for p, e in zip(z, error, strict=True)]
    close(layers.vjp_post(layer, h, jnp.array(error, float)), np.array(expected))


def test_vjps_of_dense_are_products_with_the_explicit_matrices():
    z, delta, down = (jnp.array(a, float) for a in (Z, DELTA, DOWN))
    close(layers.vjp_theta(LAYER, THETA, z, delta), {"w": Z.T @ DELTA, "b": DELTA.sum(axis=0)})
    close(layers.vjp_below(LAYER, THETA, z, delta), DELTA @ W.T)
    close(layers.vjp_feedback(LAYER, {"w": THETA["w"]}, z, delta, down), {"w": DOWN.T @ DELTA})


def test_feedback_with_the_forward_weights_is_the_transposed_derivative():
    z, delta = jnp.array(Z, float), jnp.array(DELTA, float)
    carried = layers.feedback(LAYER, {"w": THETA["w"]}, z, delta)
    close(carried, layers.vjp_below(LAYER, THETA, z, delta))
    close(carried, DELTA @ W.T)


def test_shapes_and_names(key):
    assert (LAYER.in_shape, LAYER.out_shape) == ((N_IN,), (N_OUT,))
    theta = LAYER.init(key, lambda key, shape: jnp.ones(shape))
    e = LAYER.init_feedback(key, lambda key, shape: jnp.ones(shape))
    close(theta, {"w": np.ones((N_IN, N_OUT)), "b": np.zeros(N_OUT)})
    close(e, {"w": np.ones((N_IN, N_OUT))})


@pytest.mark.parametrize(
    ("args", "name"),
    [((0, 2), "n_in"), ((2, -1), "n_out"), ((2, 2, "tan"), "activation='tan'.*'tanh'")],
)
def test_bad_arguments_are_named(args, name):
    with pytest.raises(ValueError, match=name):
        layers.dense(*args)


def test_annotated_shapes_are_checked_while_testing(network, batch):
    """Neither would show otherwise: z - y asks for no h, and any array has a mean."""
    z_out = jnp.full((7, 2), 0.5)
    with pytest.raises(TypeCheckError, match="parameter 'z_out'"):
        steps.output_error(network, batch, jnp.ones((7, 3)), z_out)
    with pytest.raises(TypeCheckError, match="parameter 'values'"):
        steps.batch_mean(z_out, {})
