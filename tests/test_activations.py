import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import layers

H = jnp.array([-2.0, -1.5, -0.5, 0.0, 0.25, 0.5, 3.0])
ERROR = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def value_and_vjp(text):
    layer = layers.dense(1, len(H), text)
    return layers.post(layer, H[None])[0], layers.vjp_post(layer, H[None], ERROR[None])[0]


@pytest.mark.parametrize(
    ("text", "value", "slope"),
    [
        ("sign", [-1, -1, -1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]),
        ("threshold", [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]),
        ("hard_tanh", [-1, -1, -0.5, 0, 0.25, 0.5, 1], [0, 0, 1, 1, 1, 1, 0]),
        ("sign_ste", [-1, -1, -1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0]),
        ("threshold_ste", [0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0]),
        ("kwta:0.4", [0, 0, 0, 0, 0.25, 0.5, 3], [0, 0, 0, 0, 1, 1, 1]),  # 2.8 of 7, rounded up
        ("kwta", [0, 0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 0, 0, 1]),
        ("kwta:1", H, [1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_values_and_slopes_by_hand(text, value, slope):
    actual, vjp = value_and_vjp(text)
    np.testing.assert_array_equal(actual, np.array(value, np.float32))
    np.testing.assert_array_equal(vjp, np.array(slope, np.float32) * ERROR)


def gelu_argument(h):
    """Of the tanh that stands for the Gaussian's integral (Hendrycks and Gimpel 2016)."""
    return np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)


# phi and its derivative; those of reference.PHI are tested in test_layers.py.
POINTWISE = {
    "leaky_relu": (
        lambda h: np.where(h >= 0, h, 0.01 * h),
        lambda h: np.where(h >= 0, 1, 0.01),
    ),
    "gelu": (
        lambda h: h * (1 + np.tanh(gelu_argument(h))) / 2,
        lambda h: (
            (1 + np.tanh(gelu_argument(h))) / 2
            + h
            / (2 * np.cosh(gelu_argument(h)) ** 2)
            * np.sqrt(2 / np.pi)
            * (1 + 3 * 0.044715 * h**2)
        ),
    ),
    "silu": (
        lambda h: h * reference.sigmoid(h),
        lambda h: reference.sigmoid(h) * (1 + h * (1 - reference.sigmoid(h))),
    ),
    "elu": (
        lambda h: np.where(h > 0, h, np.exp(h) - 1),
        lambda h: np.where(h > 0, 1, np.exp(h)),
    ),
    "sine": (np.sin, np.cos),
}


@pytest.mark.parametrize("text", POINTWISE)
def test_values_and_slopes_are_those_of_numpy(text):
    phi, slope = POINTWISE[text]
    h, (value, vjp) = np.asarray(H, np.float64), value_and_vjp(text)
    np.testing.assert_allclose(value, phi(h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vjp, slope(h) * ERROR, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["sign_ste", "threshold_ste"])
def test_a_straight_through_activation_has_slope_1_up_to_the_edge(text):
    slope = jax.vmap(jax.grad(layers.ACTIVATIONS[text]))(jnp.array([-1.01, -0.99, 0.99, 1.01]))
    np.testing.assert_array_equal(slope, [0, 1, 1, 0])


def test_divisive_normalisation_by_hand_and_in_its_derivative():
    value, vjp = value_and_vjp("divisive")
    drive = np.maximum(H, 0) ** 2
    np.testing.assert_allclose(value, drive / (1 + drive.sum() / 7), rtol=1e-6)
    moved = [
        (layers.ACTIVATIONS["divisive"](H + step) - layers.ACTIVATIONS["divisive"](H - step))
        @ ERROR
        for step in 1e-2 * np.eye(7, dtype=np.float32)
    ]
    np.testing.assert_allclose(vjp, np.array(moved) / 2e-2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("fraction", "units", "winners"),
    [(0.07, 100, 7), (0.14, 50, 7), (0.55, 100, 55), (0.071, 100, 8), (1e-9, 10, 1)],
)
def test_so_many_units_win_although_a_fraction_is_rounded(fraction, units, winners):
    assert (layers.kwta(fraction)(jnp.arange(1.0, units + 1)) != 0).sum() == winners


def test_kwta_is_over_a_whole_layer_of_maps():
    h = jax.random.normal(jax.random.key(0), (3, 4, 2))
    z = layers.kwta(0.25)(h)
    assert (z != 0).sum() == 6
    np.testing.assert_array_equal(np.sort(z[z != 0]), np.sort(h.ravel())[-6:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kwt", "did you mean 'kwta'"),
        ("kwta:0", "fraction of winners"),
        ("kwta:1.5", "fraction of winners"),
        ("kwta:", "fraction of winners"),
        ("kwta:half", "fraction of winners"),
        ("tanh:2", "activation='tanh:2'.*only kwta"),
    ],
)
def test_bad_texts_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        layers.parse_activation(text)


@pytest.mark.parametrize("text", ["sign", "threshold", "kwta:0.5"])
def test_lra_without_derivatives_teaches_through_what_has_none(text, batch):
    network = lrajax.mlp((5, 4, 6, 3, 2), text)
    algo = lrajax.lra_e(network, derivative=False, beta=4.0)
    params = reference.make_params(algo)
    lambda_, updates = reference.compute(algo, params, batch)
    displaced = lambda_.h[2] - 4 * jnp.matmul(lambda_.z[3] - batch.y, params.feedback[3]["w"].T)
    error = -2 * (layers.post(network.layers[2], displaced) - lambda_.z[2])
    update = jnp.matmul(lambda_.z[1].T, error)
    assert update.any()
    chex.assert_trees_all_close(updates.forward[2]["w"], update, rtol=1e-5, atol=1e-6)
