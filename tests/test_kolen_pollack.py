import chex
import jax
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax import diagnostics

DECAY = 0.3


def gaps(params):
    """E - Wᵀ of every layer that has an E, in the orientation of W."""
    return [
        np.asarray(e["w"] - theta["w"])
        for theta, e in zip(params.forward[1:], params.feedback[1:], strict=True)
    ]


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(activation):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    batch = reference.make_batch(network, 7)
    rule = lrajax.kolen_pollack(network, decay=DECAY)
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    e_matrix = {l: e.T for l, e in reference.paper(params.feedback).items()}
    x, y = reference.columns(batch)
    h, z = reference.forward(w, b, x, activation)
    _, slope = reference.PHI[activation]
    delta = {4: z[4] - y}
    for l in (4, 3, 2):
        delta[l - 1] = (e_matrix[l] @ delta[l]) * slope(h[l - 1])
    correlation = {l: delta[l] @ z[l - 1].T for l in w}

    _, updates = reference.compute(rule, params, batch)
    reference.assert_updates(
        updates.forward,
        {l: correlation[l] + DECAY * w[l] for l in w},
        {l: delta[l].sum(axis=1) + DECAY * b[l][:, 0] for l in w},
    )
    reference.assert_updates(
        updates.feedback, {l: correlation[l] + DECAY * e_matrix[l].T for l in e_matrix}
    )


def test_with_tied_weights_and_no_decay_equals_backprop(network, batch):
    rule, yardstick = lrajax.kolen_pollack(network, decay=0.0), lrajax.backprop(network)
    tied = reference.tie(reference.make_params(rule))
    _, updates = reference.compute(rule, tied, batch)
    _, expected = reference.compute(yardstick, tied, batch)
    chex.assert_trees_all_close(updates.forward, expected.forward, rtol=1e-5, atol=1e-6)
    mirror = [{"w": update["w"]} for update in expected.forward[1:]]
    chex.assert_trees_all_close(updates.feedback, ((), *mirror), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_difference_to_the_transpose_shrinks_geometrically(network, batch, decay):
    """By 1 - λκ a step of SGD, whatever the errors are."""
    rate, steps = 0.1, 20
    with jax.enable_x64(True):
        rule = lrajax.kolen_pollack(network, decay=decay)
        params = reference.make_params(rule)
        batch = reference.make_batch(network, 7)
        optimizer = optax.sgd(rate)

        def step(params, _):
            _, updates = reference.compute(rule, params, batch)
            deltas, _ = optimizer.update(updates, optimizer.init(params))
            return optax.apply_updates(params, deltas), None

        trained, _ = jax.jit(lambda params: jax.lax.scan(step, params, length=steps))(params)
        before, after = map(jax.jit(diagnostics.feedback_angles), (params, trained))
        assert (after < before).all() or not decay
    assert np.abs(trained.forward[1]["w"] - params.forward[1]["w"]).max() > 0.05
    for gap, shrunk in zip(gaps(params), gaps(trained), strict=True):
        np.testing.assert_allclose(shrunk, (1 - rate * decay) ** steps * gap, rtol=1e-9)
