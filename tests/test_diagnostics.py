import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import diagnostics, losses


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ([1, 0], [0, 2], 90),
        ([1, 0], [3, 3], 45),
        ([1, 2], [-2, -4], 180),
        ([1, 0], [-1, np.sqrt(3)], 120),
        ([1, 2], [1, 2], 0),
    ],
)
def test_angle_of_known_vectors(a, b, degrees):
    a, b = jnp.array(a, float), jnp.array(b, float)
    np.testing.assert_allclose(diagnostics.angle(a, b), degrees, atol=0.05)
    # A tree counts as one vector, however unequally it is cut.
    zero = jnp.zeros(1)
    cut = ([a[:1], jnp.append(a[1:], zero)], [b[:1], jnp.append(b[1:], zero)])
    np.testing.assert_allclose(diagnostics.angle(*cut), degrees, atol=0.05)


@pytest.mark.parametrize("scale", [1e-37, 1e-10, 1, 1e10, 1e37])
@pytest.mark.parametrize("other", [1, 1e-20, 1e20])
def test_an_angle_does_not_depend_on_lengths(scale, other):
    a, b = scale * jnp.array([1.0, 0.0]), other * jnp.array([1.0, 1.0])
    np.testing.assert_allclose(diagnostics.angle(a, b), 45, atol=1e-3)


@pytest.mark.parametrize("degrees", [0, 1e-3, 0.05, 60, 179.95, 180])
def test_small_and_straight_angles_are_as_exact_as_others(degrees):
    turned = jnp.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    angle = diagnostics.angle(jnp.array([1.0, 0.0]), turned)
    np.testing.assert_allclose(angle, degrees, atol=2e-5)


def test_a_vector_has_no_angle_to_itself(key):
    a = jax.random.normal(key, (1000,))
    assert diagnostics.angle(a, a) == 0


def test_angles_of_vanishing_updates_are_those_of_float64():
    """Of 24 layers the lower ones' updates have squares that float32 does not know."""
    network = lrajax.mlp((6, *[8] * 24, 4))
    algo, bp = (rule(network, reduction="mean") for rule in (lrajax.lra_e, lrajax.backprop))
    params, batch = algo.init(jax.random.key(0)), reference.make_batch(network, 5)
    updates = [reference.compute_whole(rule, params, batch)[1] for rule in (algo, bp)]
    vectors = [
        [
            np.concatenate([x.ravel() for x in jax.tree.leaves(theta)], dtype=float)
            for theta in u.forward
        ]
        for u in updates
    ]
    expected = [
        np.degrees(np.arccos(u @ v / np.sqrt((u @ u) * (v @ v)))) if u.any() and v.any() else np.nan
        for u, v in zip(*vectors, strict=True)
    ]
    assert any(0 < (u @ u) * (v @ v) < 1e-45 for u, v in zip(*vectors, strict=True))
    np.testing.assert_allclose(diagnostics.layer_angles(*updates), expected, atol=0.05)


def test_there_is_no_angle_to_zero():
    assert np.isnan(diagnostics.angle(jnp.zeros(3), jnp.ones(3)))
    assert np.isnan(diagnostics.angle((), ()))


def entry(*numbers):
    return {"w": jnp.array(numbers, float)}


def test_update_angles_compare_forward_updates_per_layer_and_over_all():
    a = lrajax.Params((entry(1, 0), entry(1, 0)), (entry(9, 9), ()))
    b = lrajax.Params((entry(0, 1), entry(1, 0)), (entry(-9, -9), ()))
    np.testing.assert_allclose(diagnostics.layer_angles(a, b), [90, 0], atol=0.05)
    np.testing.assert_allclose(diagnostics.update_angle(a, b), 60, atol=0.05)


def test_feedback_angles_skip_layers_without_feedback_and_parameters_without_a_mirror():
    forward = tuple(entry(1, 0) | {"b": jnp.ones(2)} for _ in range(3))
    params = lrajax.Params(forward, ((), entry(1, 1), entry(-2, 0)))
    np.testing.assert_allclose(diagnostics.feedback_angles(params), [45, 180], atol=0.05)
    np.testing.assert_allclose(diagnostics.mirror_angles(params), [np.nan, 45, 180], atol=0.05)


def test_feedback_that_is_no_mirror_has_no_angle(network):
    below, above = lrajax.dfa(network), lrajax.lra_e(network)
    # DFA's feedback from the output to the topmost hidden layer has the shape of W.
    rules = {lrajax.backprop(network): 0, below: 1, lrajax.by_layer([below] * 2 + [above] * 2): 0}
    for rule, count in rules.items():
        assert diagnostics.feedback_angles(reference.make_params(rule)).shape == (count,)


@pytest.mark.parametrize(
    ("loss", "hidden"),
    [(losses.gaussian, [5, 9]), (losses.cauchy, [np.log(2) + np.log(5), np.log(10)])],
)
def test_total_discrepancy_by_hand(loss, hidden):
    y, z = jnp.array([[0.5, -1.0], [2.0, 0.0]]), jnp.array([[1.5, 1.0], [2.0, -3.0]])
    label, p = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.5, 0.5], [0.9, 0.1]])
    lambda_ = lrajax.Calculations(x=y, h=(), z=(z, z, p), targets=(y, y, label), errors=())
    actual = diagnostics.total_discrepancy(lrajax.mlp((2, 2, 2, 2)), lambda_, loss)
    expected = 2 * np.array(hidden) + [np.log(2), np.log(10)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_gaussian_is_the_default_local_loss(network, batch):
    rule = lrajax.lra_e(network)
    lambda_, _ = reference.compute(rule, reference.make_params(rule), batch)
    np.testing.assert_allclose(
        diagnostics.total_discrepancy(network, lambda_),
        diagnostics.total_discrepancy(network, lambda_, losses.gaussian),
    )


def test_angles_to_backprop_are_zero_for_tied_feedback_alignment(network, batch, key):
    rule = lrajax.rfa(network)
    params = reference.make_params(rule)
    yardstick = lrajax.backprop(network)
    per_layer, overall = diagnostics.update_angles_to_backprop(
        yardstick, rule, reference.tie(params), batch, key=key
    )
    np.testing.assert_allclose(per_layer, [0, 0, 0, 0], atol=0.1)
    np.testing.assert_allclose(overall, 0, atol=0.1)
    per_layer, overall = diagnostics.update_angles_to_backprop(yardstick, rule, params, batch)
    assert (per_layer[:-1] > 1).all()
    assert per_layer[-1] < 0.1
    assert overall > 1


def test_the_key_reaches_a_rule_that_draws_noise(network, batch, key):
    rule = lrajax.dtp(network)
    params = reference.make_params(rule)
    diagnostics.update_angles_to_backprop(lrajax.backprop(network), rule, params, batch, key=key)
    with pytest.raises(ValueError, match="key"):
        diagnostics.update_angles_to_backprop(lrajax.backprop(network), rule, params, batch)


def test_quantities_are_named_by_their_layer(network, batch):
    algo = lrajax.lra_e(network)
    params = reference.make_params(algo)
    lambda_, updates = reference.compute(algo, params, batch)
    named = diagnostics.quantities(lambda_, updates, params)
    for field in ("h", "z", "targets", "errors"):
        for l, array in enumerate(getattr(lambda_, field)):
            assert named.pop(f"{field}/{l}") is array
    for kind, tree in (("updates", updates), ("params", params)):
        for l in range(4):
            assert named.pop(f"{kind}/forward/{l}") is tree.forward[l]
        for l in range(1, 4):  # nothing is fed back to the input
            assert named.pop(f"{kind}/feedback/{l}") is tree.feedback[l]
    assert not named
