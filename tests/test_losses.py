import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrajax import losses

Y, Z = jnp.array([[0.5, -1.0], [2.0, 0.0]]), jnp.array([[1.5, 1.0], [2.0, -3.0]])
ALL = [losses.categorical, losses.bernoulli, losses.gaussian, losses.cauchy, losses.half_squared]


@pytest.mark.parametrize(
    ("loss", "values", "errors"),
    [
        (losses.gaussian, [5, 9], [[2, 4], [0, -6]]),  # (3), sigma^2 = 1/2
        (
            losses.cauchy,  # (4)
            [np.log(2) + np.log(5), np.log(10)],
            [[2 / 2, 4 / 5], [0, -6 / 10]],
        ),
        (losses.half_squared, [2.5, 4.5], [[1, 2], [0, -3]]),
    ],
)
def test_by_hand(loss, values, errors):
    np.testing.assert_allclose(loss.value(Y, Z), values, rtol=1e-6)
    np.testing.assert_allclose(loss.error(Y, Z), errors, rtol=1e-6)


def test_categorical_by_hand():
    y, z = jnp.array([[0.0, 1.0], [0.25, 0.75]]), jnp.array([[0.2, 0.8], [0.5, 0.5]])
    np.testing.assert_allclose(losses.categorical.value(y, z), [-np.log(0.8), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(
        losses.categorical.error(y, z), [[0, -1.25], [-0.5, -1.5]], rtol=1e-6
    )


def test_bernoulli_by_hand():
    y, z = jnp.array([[0.0, 1.0], [0.25, 0.5]]), jnp.array([[0.2, 0.8], [0.5, 0.5]])
    values = [-2 * np.log(0.8), 2 * np.log(2)]
    np.testing.assert_allclose(losses.bernoulli.value(y, z), values, rtol=1e-6)
    expected = [[1.25, -1.25], [1, 0]]
    np.testing.assert_allclose(losses.bernoulli.error(y, z), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_error_is_the_gradient_of_value(loss, shape):
    y, z = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 5, *shape)).astype(np.float32)
    assert loss.value(y, z).shape == (5,)
    grad = jax.grad(lambda z: loss.value(jnp.array(y), z).sum())(jnp.array(z))
    np.testing.assert_allclose(loss.error(y, z), grad, rtol=1e-4)


def test_categorical_with_softmax_has_error_z_minus_y_in_the_pre_activity():
    h, y = jnp.array([[0.3, -1.0, 2.0]]), jnp.array([[0.0, 1.0, 0.0]])
    z, vjp = jax.vjp(jax.nn.softmax, h)
    np.testing.assert_allclose(vjp(losses.categorical.error(y, z))[0], z - y, atol=1e-6)


def test_bernoulli_with_sigmoid_has_error_z_minus_y_in_the_pre_activity():
    h, y = jnp.array([[0.3, -1.0, 2.0]]), jnp.array([[0.0, 1.0, 0.5]])
    z, vjp = jax.vjp(jax.nn.sigmoid, h)
    np.testing.assert_allclose(vjp(losses.bernoulli.error(y, z))[0], z - y, atol=1e-6)


def test_a_confident_mistake_costs_what_the_smallest_number_does():
    y, z = jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 0.0]])
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(losses.categorical.value(y, z), [-np.log(tiny)], rtol=1e-6)
    np.testing.assert_allclose(losses.categorical.error(y, z), [[0, -1 / tiny]], rtol=1e-6)
    np.testing.assert_allclose(losses.bernoulli.value(y, z), [-2 * np.log(tiny)], rtol=1e-6)
    np.testing.assert_allclose(losses.bernoulli.error(y, z), [[1 / tiny, -1 / tiny]], rtol=1e-6)


def test_local_losses_are_named_after_their_distribution():
    assert set(losses.LOCAL_LOSSES) == {"gaussian", "cauchy"}
    assert losses.LOCAL_LOSSES["gaussian"] is losses.gaussian
    assert losses.LOCAL_LOSSES["cauchy"] is losses.cauchy


def test_activities_of_exactly_0_and_1_fit_losses_of_probabilities():
    """As a softmax of float32 has them for an answer without doubt."""
    certain = np.array([[0.0, 1.0]])
    assert losses.categorical.fits(certain)
    assert losses.bernoulli.fits(certain)
    assert not losses.categorical.fits(certain[:, ::-1] - certain)
    assert not losses.bernoulli.fits(2 * certain)


@pytest.mark.parametrize(("total", "fits"), [(1.09, True), (1.15, False), (0.85, False)])
def test_probabilities_sum_to_one_within_a_tenth(total, fits):
    """Which leaves room for products of bfloat16."""
    assert losses.categorical.fits(np.array([[total - 0.5, 0.5]])) == fits
