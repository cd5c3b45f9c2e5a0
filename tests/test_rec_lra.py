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


def test_a_skip_over_convolutions_learns_from_the_activity_below_and_the_outputs_error():
    network = lrajax.networks.vgg5((16, 16, 1), 4, width=2)
    rule = lrajax.rec_lra(network, stride=2, gamma=GAMMA)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, updates = reference.compute_whole(rule, params, batch)
    assert params.feedback[2]["w"].shape == (8 * 8 * 4, 4)
    below = np.asarray(lambda_.z[1]).reshape(7, -1)
    expected = GAMMA * below.T @ np.asarray(lambda_.errors[-1])
    np.testing.assert_allclose(updates.feedback[2]["w"], expected, rtol=1e-4, atol=1e-6)


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


PUBLISHED = {
    "derivative": False,
    "doubled": False,
    "mix": (0.19, 0.24),
    "e_update": "displacement",
    "max_norm": 0.7,
}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_as_published_equals_numpy(reduction):
    network = lrajax.mlp(SIZES)
    batch = reference.make_batch(network, 7)
    settings = {"stride": 2, "beta": BETA, "gamma": GAMMA, **PUBLISHED}
    rule = lrajax.rec_lra(network, reduction=reduction, **settings)
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    to = {l - 1: e.T for l, e in reference.paper(params.feedback).items()}
    source = {1: 2, 2: 5, 3: 4, 4: 5}
    x, y_out = reference.columns(batch)
    h, z = reference.forward(w, b, x, "tanh")
    e, d = {5: z[5] - y_out}, {}
    for l in (4, 3, 2, 1):
        d[l] = to[l] @ e[source[l]]
        error = z[l] - np.tanh(h[l] - BETA * d[l])
        share = 0.19 if l == 2 else 0.24
        e[l] = share * error + (1 - share) * np.sign(error)

    def capped(update):
        update = update / 7 if reduction == "mean" else update
        return update * min(1, 0.7 / np.linalg.norm(update))

    _, updates = reference.compute(rule, params, batch)
    reference.assert_updates(
        updates.forward,
        {l: capped(e[l] @ z[l - 1].T) for l in w},
        {l: capped(e[l].sum(axis=1)) for l in w},
    )
    reference.assert_updates(
        updates.feedback, {l + 1: capped(GAMMA * e[source[l]] @ d[l].T) for l in to}
    )


def test_a_stride_beyond_the_depth_is_lra_e_v2_without_the_2(network):
    """Half the error unit of every hidden layer is half the next displacement, once a hop."""
    with jax.enable_x64(True):
        rule = lrajax.rec_lra(network, stride=9, beta=1e-3, derivative=False, doubled=False)
        plain = lrajax.lra_e(network, beta=1e-3, derivative=False)
        params, batch = reference.make_params(plain), reference.make_batch(network, 7)
        halved, updates = reference.compute_whole(rule, params, batch)
        full, expected = reference.compute_whole(plain, params, batch)
        # To the first order in β, where tanh is linear, hop after hop.
        for hops, l in ((0, 3), (1, 2), (2, 1), (3, 0)):
            np.testing.assert_allclose(
                2**hops * halved.errors[l], full.errors[l], rtol=2e-2, atol=1e-7
            )
            np.testing.assert_allclose(
                2**hops * updates.forward[l]["w"], expected.forward[l]["w"], rtol=2e-2, atol=1e-6
            )


def test_the_update_of_displacements_shrinks_what_carries_errors(network, batch):
    """As γ d eᵀ is γ E e eᵀ: E loses norm, by no more than a small step takes."""
    rule = lrajax.rec_lra(network, e_update="displacement")
    params = reference.make_params(rule)
    _, updates = reference.compute(rule, params, batch)
    for e, update in zip(params.feedback[1:], updates.feedback[1:], strict=True):
        assert (e["w"] * update["w"]).sum() > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"e_update": "hebb"}, "e_update='hebb'"),
        ({"mix": (0.2,)}, "mix=.*two shares"),
        ({"mix": (0.2, 1.2)}, r"mix=1\.2"),
        ({"max_norm": 0.0}, r"max_norm=0\.0"),
    ],
)
def test_bad_options_are_named(network, kwargs, message):
    with pytest.raises(ValueError, match=message):
        lrajax.rec_lra(network, **kwargs)
