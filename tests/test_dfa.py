import jax
import numpy as np
import pytest
import reference

import lrajax


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(activation):
    network = lrajax.mlp((5, 4, 6, 3, 2), activation)
    batch = reference.make_batch(network, 7)
    rule = lrajax.dfa(network)
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    e_matrix = {l: e.T for l, e in reference.paper(params.feedback).items()}
    x, y = reference.columns(batch)
    h, z = reference.forward(w, b, x, activation)
    _, slope = reference.PHI[activation]
    error = {l - 1: e_matrix[l] @ (z[4] - y) for l in (2, 3, 4)} | {4: z[4] - y}
    delta = {l: error[l] * slope(h[l]) for l in (1, 2, 3)} | {4: error[4]}

    lambda_, updates = reference.compute(rule, params, batch)
    reference.assert_columns(lambda_.errors, error)
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ z[l - 1].T for l in w},
        {l: delta[l].sum(axis=1) for l in w},
    )


def test_every_feedback_matrix_reads_the_output(network, key):
    feedback = jax.eval_shape(lrajax.dfa(network).init, key).feedback
    assert feedback[0] == ()
    assert [e["w"].shape for e in feedback[1:]] == [(4, 2), (6, 2), (3, 2)]


def test_a_feedback_matrix_reaches_its_own_layer_alone(network, batch):
    rule = lrajax.dfa(network)
    params = reference.make_params(rule)
    changed = list(params.feedback)
    changed[2] = {"w": 5 * params.feedback[2]["w"]}
    before, _ = reference.compute(rule, params, batch)
    after, _ = reference.compute(rule, params._replace(feedback=tuple(changed)), batch)
    pairs = zip(before.errors, after.errors, strict=True)
    assert [np.allclose(a, b) for a, b in pairs] == [True, False, True, True]
