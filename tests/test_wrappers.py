import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrajax
from lrajax import layers

RNG = np.random.default_rng(0)
KEY = jax.random.key(1)
B, N = 5, 4
SQUARE = layers.dense(N, N)
THETA = {
    name: RNG.normal(size=shape).astype(np.float32) for name, shape in (("w", (N, N)), ("b", N))
}
Z, DELTA = (RNG.normal(size=(B, N)).astype(np.float32) for _ in range(2))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_residual_adds_the_activity_below_and_the_error_above():
    layer = layers.residual(SQUARE)
    close(layers.pre(layer, THETA, Z), Z @ THETA["w"] + THETA["b"][None] + Z)
    close(layers.feedback(layer, THETA, Z, DELTA), DELTA @ THETA["w"].T + DELTA)
    close(layers.vjp_below(layer, THETA, Z, DELTA), DELTA @ THETA["w"].T + DELTA)
    with pytest.raises(ValueError, match=r"\(4,\) in, \(3,\) out"):
        layers.residual(layers.dense(4, 3))


def test_layer_norm_standardises_each_example():
    h = 3 + 2 * DELTA
    centred = h - h.mean(axis=1, keepdims=True)
    expected = np.tanh(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5))
    close(layers.post(layers.layer_norm(SQUARE), h), expected)
    image = layers.layer_norm(layers.conv((2, 2, 1), 1, 1))
    close(layers.post(image, h.reshape(B, 2, 2, 1)), expected.reshape(B, 2, 2, 1))


def test_reshaped_takes_the_same_numbers_in_another_shape():
    layer = layers.reshaped(SQUARE, (2, 1, 2))
    z = Z.reshape(B, 2, 1, 2)
    assert (layer.in_shape, layer.out_shape) == ((2, 1, 2), (N,))
    close(layers.pre(layer, THETA, z), layers.pre(SQUARE, THETA, Z))
    below = (DELTA @ THETA["w"].T).reshape(z.shape)
    close(layers.feedback(layer, THETA, z, DELTA), below)
    close(layers.vjp_below(layer, THETA, z, DELTA), below)
    with pytest.raises(ValueError, match=r"in_shape=\(3,\)"):
        layers.reshaped(SQUARE, (3,))


def test_dropout_silences_a_share_and_keeps_the_expectation():
    layer = layers.dropout(layers.dense(3, 200), 0.3, KEY)
    h = jnp.ones((50, 200))
    z = layers.post(layer, h)
    kept = z != 0
    np.testing.assert_allclose(z[kept], np.tanh(1) / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.02
    assert abs(z.mean() - np.tanh(1)) < 0.03
    assert len(np.unique(kept, axis=0)) == 50  # another mask for every example
    np.testing.assert_array_equal(layers.post(layer, h), z)
    other = layers.post(layers.dropout(layers.dense(3, 200), 0.3, jax.random.key(2)), h)
    assert (other != z).any()
    slope = np.where(kept, (1 - np.tanh(1) ** 2) / 0.7, 0)
    np.testing.assert_allclose(layers.vjp_post(layer, h, jnp.ones_like(h)), slope, rtol=1e-5)


def test_dropout_at_rate_0_or_without_a_key_is_the_layer():
    np.testing.assert_array_equal(
        layers.post(layers.dropout(SQUARE, 0.0, KEY), DELTA), layers.post(SQUARE, DELTA)
    )
    assert layers.dropout(SQUARE, 0.5, None) is SQUARE
    for rate in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match=f"rate={rate}"):
            layers.dropout(SQUARE, rate, KEY)


def test_bernoulli_fires_with_the_sigmoids_probability_and_slope():
    h = jnp.linspace(-3, 3, 7)[None, :] * jnp.ones((4000, 1))
    p = np.asarray(1 / (1 + np.exp(-h)))
    units = layers.dense(1, 7)
    close(layers.post(layers.bernoulli(units, None), h), p)
    layer = layers.bernoulli(units, KEY)
    z = layers.post(layer, h)
    assert set(np.unique(z)) == {0, 1}
    np.testing.assert_allclose(z.mean(axis=0), p[0], atol=0.03)
    close(layers.vjp_post(layer, h, 2 * jnp.ones_like(h)), 2 * p * (1 - p))


def test_wrappers_compose():
    stack = layers.dropout(
        layers.residual(layers.layer_norm(layers.conv((4, 4, 2), 2, 3))), 0.5, KEY
    )
    theta = {"w": RNG.normal(size=(3, 3, 2, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}
    z = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)

    @jax.jit
    def products():
        h = layers.pre(stack, theta, z)
        below = layers.vjp_below(stack, theta, z, h)
        return layers.post(stack, h), layers.feedback(stack, theta, z, h), below

    activity, carried, below = products()
    assert activity.shape == z.shape
    close(carried, below)


def test_binary_sends_signs_and_passes_derivatives_straight_through():
    layer = layers.binary(SQUARE)
    close(layers.pre(layer, THETA, np.zeros_like(Z)), THETA["b"][None].repeat(B, axis=0))
    close(layers.pre(layer, THETA, Z), np.sign(Z) @ THETA["w"] + THETA["b"][None])
    close(layers.vjp_theta(layer, THETA, Z, DELTA)["w"], np.sign(Z).T @ DELTA)
    close(layers.vjp_below(layer, THETA, Z, DELTA), DELTA @ THETA["w"].T)
    close(layers.feedback(layer, THETA, Z, DELTA), DELTA @ THETA["w"].T)
    close(layers.post(layer, Z), np.tanh(Z))


def test_bfloat16_rounds_the_operands_of_every_product_and_nothing_else():
    layer = layers.bfloat16(SQUARE)
    w, z, delta = (
        np.asarray(jnp.asarray(a, jnp.bfloat16), np.float32) for a in (THETA["w"], Z, DELTA)
    )
    assert (w != THETA["w"]).any()
    close(layers.pre(layer, THETA, Z), z @ w + THETA["b"][None])
    close(layers.feedback(layer, THETA, Z, DELTA), delta @ w.T)
    close(layers.vjp_below(layer, THETA, Z, DELTA), delta @ w.T)
    updates = layers.vjp_theta(layer, THETA, Z, DELTA)
    close(updates["w"], z.T @ delta)
    close(updates["b"], delta.sum(axis=0))
    close(layers.vjp_feedback(layer, {"w": THETA["w"]}, Z, DELTA, Z)["w"], z.T @ delta)


def test_bfloat16_rounds_to_eight_significant_bits():
    layer = layers.bfloat16(layers.dense(1, 1))
    theta = {"w": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    z = np.array([[255.0], [257.0], [258.0]], np.float32)
    np.testing.assert_array_equal(layers.pre(layer, theta, z), [[255], [256], [258]])


def test_bfloat16_leaves_biases_of_any_shape_alone():
    plain = layers.locally_connected((3, 3, 1), 2, 2)
    theta = plain.init(KEY, lrajax.initializers.gaussian(1.0))
    theta |= {"w": np.zeros_like(theta["w"]), "b": np.full_like(theta["b"], 257)}
    z = np.ones((1, 3, 3, 1), np.float32)
    np.testing.assert_array_equal(layers.pre(layers.bfloat16(plain), theta, z), theta["b"][None])
