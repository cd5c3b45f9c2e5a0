import jax
import numpy as np
import pytest
import reference

import lrajax
from lrajax.algorithms import dual_prop


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(activation):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    batch = reference.make_batch(network, 7)
    rule = dual_prop(network, beta=0.6, reduction="mean")
    params = reference.make_params(rule)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    x, y = reference.columns(batch)
    h, z = reference.forward(w, b, x, activation)
    phi, _ = reference.PHI[activation]
    delta = {4: z[4] - y}
    error = dict(delta)
    for l in (3, 2, 1):
        error[l] = w[l + 1].T @ delta[l + 1]
        delta[l] = (phi(h[l] + 0.3 * error[l]) - phi(h[l] - 0.3 * error[l])) / 0.6

    lambda_, updates = reference.compute(rule, params, batch)
    reference.assert_columns(lambda_.errors, error)
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ z[l - 1].T / 7 for l in w},
        {l: delta[l].sum(axis=1) / 7 for l in w},
    )


def test_tends_to_backprop_with_the_square_of_beta(network):
    with jax.enable_x64(True):
        yardstick = lrajax.backprop(network)
        params, batch = reference.make_params(yardstick), reference.make_batch(network, 7)
        _, exact = reference.compute_whole(yardstick, params, batch)
        gaps = []
        for beta in (0.2, 0.1):
            _, updates = reference.compute_whole(dual_prop(network, beta=beta), params, batch)
            gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), updates, exact)
            gaps.append(np.array(jax.tree.leaves(gap)[:-2]))  # the output has no states
    np.testing.assert_allclose(gaps[0] / gaps[1], 4, rtol=0.05)


def test_a_beta_of_zero_is_refused(network):
    with pytest.raises(ValueError, match=r"beta=0\.0"):
        dual_prop(network, beta=0.0)


@pytest.mark.parametrize("depth", [3, 32])
def test_errors_of_a_fitted_batch_outlive_a_small_beta(depth):
    """In single precision: the lowest layer's update is within a degree of backprop's."""
    network = lrajax.mlp((8, *[32] * depth, 4))
    yardstick = lrajax.backprop(network)
    params = yardstick.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 8))
    y = yardstick.predict(params, x) + 1e-5 * jax.random.normal(jax.random.key(2), (5, 4))
    batch = lrajax.Batch(x, y)  # all but fitted
    _, exact = reference.compute_whole(yardstick, params, batch)
    _, updates = reference.compute_whole(dual_prop(network, beta=0.01), params, batch)
    lowest = (updates.forward[0]["w"], exact.forward[0]["w"])
    cosine = np.vdot(*lowest) / np.linalg.norm(lowest[0]) / np.linalg.norm(lowest[1])
    assert cosine > np.cos(np.radians(1))
