import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import diagnostics, layers
from lrajax.algorithms import weight_mirror

KEY = jax.random.key(0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_equals_numpy(network, batch, reduction):
    rule = weight_mirror(network, mirror_rate=0.3, reduction=reduction)
    params = reference.make_params(rule)
    lambda_, updates = reference.compute(rule, params, batch, KEY)
    _, expected = reference.compute(lrajax.rfa(network, reduction=reduction), params, batch)
    w, e = reference.paper(params.forward), reference.paper(params.feedback)
    factor = 1 if reduction == "sum" else 1 / 7
    de = {}
    for l, noise in enumerate(lambda_.aux, 2):
        xi = np.asarray(noise, float).T
        de[l] = factor * 0.3 * (7 * e[l] - (w[l] @ xi) @ xi.T)
    reference.assert_updates(updates.feedback, de)
    for ours, theirs in zip(updates.forward, expected.forward, strict=True):
        np.testing.assert_array_equal(ours["w"], theirs["w"])


def mirrored_long(network, batch, steps, rate):
    """Parameters after steps of the mirror alone."""
    rule = weight_mirror(network, reduction="mean")
    params = reference.make_params(rule)
    optimizer = optax.sgd(rate)

    def step(params, key):
        updates = rule.calc_updates(params, rule.compute_targets(params, batch, key=key))
        updates = updates._replace(forward=jax.tree.map(jnp.zeros_like, updates.forward))
        deltas, _ = optimizer.update(updates, optimizer.init(params))
        return optax.apply_updates(params, deltas), None

    keys = jax.random.split(KEY, steps)
    return params, jax.jit(lambda params: jax.lax.scan(step, params, keys)[0])(params)


def test_on_noise_the_feedback_comes_to_equal_the_transpose(network, batch):
    params, trained = mirrored_long(network, batch, steps=2000, rate=0.05)
    assert min(diagnostics.feedback_angles(params)) > 30
    assert max(diagnostics.feedback_angles(trained)) < 5
    for theta, e in zip(trained.forward[1:], trained.feedback[1:], strict=True):
        np.testing.assert_allclose(e["w"], theta["w"], atol=0.15)


def test_a_shared_kernel_is_mirrored_at_its_own_scale():
    first = layers.conv((4, 4, 1), 2, 3)
    second = layers.conv(first.out_shape, 3, 3)
    head = layers.reshaped(layers.dense(48, 2, "softmax"), second.out_shape)
    network = lrajax.Network((first, second, head), lrajax.losses.categorical)
    _, trained = mirrored_long(network, reference.make_batch(network, 7), steps=1000, rate=0.1)
    kernel, e = trained.forward[1]["w"], trained.feedback[1]["w"]
    np.testing.assert_allclose(e, kernel, atol=0.25)
    np.testing.assert_allclose((e * kernel).sum() / (kernel**2).sum(), 1, atol=0.05)


def test_it_asks_for_a_key_and_a_rate(network, batch):
    rule = weight_mirror(network)
    with pytest.raises(ValueError, match="key=None"):
        rule.compute_targets(reference.make_params(rule), batch)
    with pytest.raises(ValueError, match=r"mirror_rate=-0\.1"):
        weight_mirror(network, mirror_rate=-0.1)
