import chex
import jax
import numpy as np
import pytest
import reference
from test_lra_e import BETA, GAMMA, error_unit

import lrajax

SIZES = (5, 4, 6, 3, 4, 2)  # four hidden layers


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("local_loss", "derivative"), [("gaussian", True), ("cauchy", False)])
def test_equals_numpy(stride, local_loss, derivative):
    network = lrajax.mlp(SIZES)
    batch = reference.make_batch(network, 7)
    rule = lrajax.rec_lra(
        network,
        stride=stride,
        beta=BETA,
        gamma=GAMMA,
        local_loss=local_loss,
        derivative=derivative,
    )
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    # to[l] carries an error to hidden layer l
    to = {l - 1: e.T for l, e in reference.paper(params.feedback).items()}
    source = {l: 5 if l in range(stride, 4, stride) else l + 1 for l in to}
    x, y_out = reference.columns(batch)
    phi, slope = reference.PHI["tanh"]
    h, z = reference.forward(w, b, x, "tanh")
    y, e = {5: y_out}, {5: z[5] - y_out}
    for l in (4, 3, 2, 1):
        y[l] = phi(h[l] - BETA * (to[l] @ e[source[l]]))
        e[l] = error_unit(local_loss, y[l], z[l])
    delta = {l: e[l] * slope(h[l]) if derivative and l < 5 else e[l] for l in w}
    dw = {l: delta[l] @ z[l - 1].T for l in w}
    de = {l + 1: GAMMA * (delta[source[l]] @ z[l].T) for l in to}

    lambda_, updates = reference.compute(rule, params, batch)
    reference.assert_columns(lambda_.targets, y)
    reference.assert_columns(lambda_.errors, e)
    reference.assert_updates(updates.forward, dw, {l: delta[l].sum(axis=1) for l in w})
    reference.assert_updates(updates.feedback, de)


def test_skips_are_every_stride_th_connection_below_the_topmost(key):
    network = lrajax.mlp((5, 4, 6, 3, 7, 8, 2))  # entry l is to the activity below layer l
    shapes = {
        stride: [
            e["w"].shape for e in lrajax.rec_lra(network, stride=stride).init(key).feedback[1:]
        ]
        for stride in (1, 2, 3, 5)
    }
    assert shapes[1] == [(4, 2), (6, 2), (3, 2), (7, 2), (8, 2)]
    assert shapes[2] == [(4, 6), (6, 2), (3, 7), (7, 2), (8, 2)]
    assert shapes[3] == [(4, 6), (6, 3), (3, 2), (7, 8), (8, 2)]
    assert shapes[5] == [(4, 6), (6, 3), (3, 7), (7, 8), (8, 2)]


@pytest.mark.parametrize("derivative", [True, False])
def test_with_a_stride_of_all_layers_is_lra_e(network, batch, key, derivative):
    settings = {"beta": BETA, "gamma": GAMMA, "derivative": derivative}
    rule = lrajax.rec_lra(network, stride=4, **settings)
    plain = lrajax.lra_e(network, **settings)
    params = plain.init(key)
    chex.assert_trees_all_equal(rule.init(key), params)
    chex.assert_trees_all_equal(
        reference.compute(rule, params, batch), reference.compute(plain, params, batch)
    )


@pytest.mark.parametrize(
    ("stride", "reached"), [(1, {4}), (2, {3, 4}), (3, {4}), (4, {1, 2, 3, 4}), (9, {1, 2, 3, 4})]
)
def test_an_error_crosses_no_more_connections_than_the_stride(stride, reached):
    """Which of four hidden layers' errors hang on the output's connection to its neighbour."""
    network = lrajax.mlp(SIZES)
    batch = reference.make_batch(network, 7)
    rule = lrajax.rec_lra(network, stride=stride)
    params = reference.make_params(rule)
    top = jax.tree.map(lambda e: 2 * e, params.feedback[-1])
    changed = params._replace(feedback=(*params.feedback[:-1], top))
    before, _ = reference.compute(rule, params, batch)
    after, _ = reference.compute(rule, changed, batch)
    pairs = enumerate(zip(before.errors[:-1], after.errors[:-1], strict=True), 1)
    assert {l for l, (a, b) in pairs if not np.array_equal(a, b)} == reached
