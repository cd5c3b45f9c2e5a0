import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(activation):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    batch = reference.make_batch(network, 7)
    rule = lrajax.sign_symmetric(network)
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    magnitude = reference.paper(params.feedback)
    x, y = reference.columns(batch)
    h, z = reference.forward(w, b, x, activation)
    _, slope = reference.PHI[activation]
    delta = {4: z[4] - y}
    error = dict(delta)
    for l in (4, 3, 2):
        error[l - 1] = (np.sign(w[l]) * np.abs(magnitude[l])).T @ delta[l]
        delta[l - 1] = error[l - 1] * slope(h[l - 1])

    lambda_, updates = reference.compute(rule, params, batch)
    reference.assert_columns(lambda_.errors, error)
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ z[l - 1].T for l in w},
        {l: delta[l].sum(axis=1) for l in w},
    )
    chex.assert_trees_all_equal(updates.feedback, jax.tree.map(jnp.zeros_like, params.feedback))


def test_with_the_magnitudes_of_the_forward_weights_equals_backprop(network, batch):
    rule, yardstick = lrajax.sign_symmetric(network), lrajax.backprop(network)
    tied = reference.tie(reference.make_params(rule))
    # M's own signs do not count.
    flipped = tied._replace(feedback=jax.tree.map(jnp.negative, tied.feedback))
    for params in (tied, flipped):
        lambda_, updates = reference.compute(rule, params, batch)
        expected_lambda, expected = reference.compute(yardstick, params, batch)
        chex.assert_trees_all_close(lambda_.errors, expected_lambda.errors, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(updates.forward, expected.forward, rtol=1e-5, atol=1e-6)


def signed(w, magnitude):
    return [{"w": np.sign(theta["w"]) * m} for theta, m in zip(w[1:], magnitude, strict=True)]


def test_uniform_magnitudes_are_one_a_layer(network, batch):
    rule, fixed = lrajax.sign_symmetric(network, magnitudes="uniform"), lrajax.rfa(network)
    params = reference.make_params(rule)
    scales = [np.sqrt((np.asarray(e["w"]) ** 2).mean()) for e in params.feedback[1:]]
    feedback = jax.tree.map(jnp.asarray, ((), *signed(params.forward, scales)))
    expected, same = reference.compute(fixed, params._replace(feedback=feedback), batch)
    found, updates = reference.compute(rule, params, batch)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-12)
    chex.assert_trees_all_close(updates.forward, same.forward, rtol=1e-5, atol=1e-6)


def test_redrawn_magnitudes_keep_signs_and_scale_and_follow_the_key():
    network = lrajax.mlp((5, 4, 60, 50))
    rule = lrajax.sign_symmetric(network, magnitudes="redrawn")
    batch = reference.make_batch(network, 50)
    params = reference.make_params(rule)
    positive = jax.tree.map(lambda a: abs(a) if a.ndim == 2 else a, params.forward)
    params = params._replace(forward=positive)
    compute = jax.jit(lambda key: rule.compute_targets(params, batch, key=key).errors)
    errors = [compute(jax.random.key(seed)) for seed in (0, 0, 1)]
    chex.assert_trees_all_equal(errors[0], errors[1])
    assert np.any(errors[0][1] != errors[2][1])
    # With W positive and errors that sum to 0, the variance of a half-normal M is what counts.
    error, delta = (np.square(errors[0][l]).sum(axis=1) for l in (1, 2))
    scale = np.square(params.feedback[2]["w"]).mean()
    np.testing.assert_allclose(error.sum(), 60 * (1 - 2 / np.pi) * scale * delta.sum(), rtol=0.1)
    with pytest.raises(ValueError, match="key=None"):
        rule.compute_targets(params, batch)


def test_unknown_magnitudes_are_named(network):
    with pytest.raises(ValueError, match=r"magnitudes='fix'.*'fixed'"):
        lrajax.sign_symmetric(network, magnitudes="fix")
