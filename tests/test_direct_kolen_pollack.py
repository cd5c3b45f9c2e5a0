import chex
import jax
import numpy as np
import optax
import pytest
import reference

import lrajax
from lrajax.algorithms import direct_kolen_pollack

DECAY = 0.3


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_equals_numpy(network, batch, reduction):
    rule = direct_kolen_pollack(network, decay=DECAY, reduction=reduction)
    params = reference.make_params(rule)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    e_matrix = {l: e.T for l, e in reference.paper(params.feedback).items()}
    x, y = reference.columns(batch)
    h, z = reference.forward(w, b, x, "tanh")
    _, slope = reference.PHI["tanh"]
    factor = 1 if reduction == "sum" else 1 / 7
    output = factor * (z[4] - y)
    delta = {l - 1: (e_matrix[l] @ output) * slope(h[l - 1]) for l in e_matrix} | {4: output}

    _, updates = reference.compute(rule, params, batch)
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ z[l - 1].T + DECAY * w[l] for l in w},
        {l: delta[l].sum(axis=1) + DECAY * b[l][:, 0] for l in w},
    )
    reference.assert_updates(
        updates.feedback,
        {l: output @ z[l - 1].T + DECAY * e.T for l, e in e_matrix.items()},
    )


def test_without_learning_or_decay_it_is_dfa(network, batch):
    rule, fixed = direct_kolen_pollack(network, decay=0.0), lrajax.dfa(network)
    params = reference.make_params(rule)
    found, updates = reference.compute(rule, params, batch)
    expected, same = reference.compute(fixed, params, batch)
    chex.assert_trees_all_equal((found, updates.forward), (expected, same.forward))


def test_at_the_topmost_hidden_layer_it_is_kolen_pollack(network, batch):
    """The difference of E and (W^L)ᵀ shrinks by 1 - λκ a step of SGD."""
    rate, steps = 0.1, 20
    with jax.enable_x64(True):
        rule = direct_kolen_pollack(network, decay=DECAY)
        params, batch = reference.make_params(rule), reference.make_batch(network, 7)
        optimizer = optax.sgd(rate)

        def step(params, _):
            _, updates = reference.compute(rule, params, batch)
            deltas, _ = optimizer.update(updates, optimizer.init(params))
            return optax.apply_updates(params, deltas), None

        trained, _ = jax.jit(lambda params: jax.lax.scan(step, params, length=steps))(params)
        before, after = (p.feedback[-1]["w"] - p.forward[-1]["w"] for p in (params, trained))
        np.testing.assert_allclose(after, (1 - rate * DECAY) ** steps * before, rtol=1e-9)


def test_a_negative_decay_is_refused(network):
    with pytest.raises(ValueError, match=r"decay=-0\.1"):
        direct_kolen_pollack(network, decay=-0.1)
