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
