import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrajax
from lrajax import diagnostics, initializers, steps

SHAPE = (300, 200)
BOUND = np.sqrt(6 / 500)


def draw(text, key):
    return np.asarray(initializers.parse(text)(key, SHAPE), np.float64)


@pytest.mark.parametrize("std", [0.05, 1.5])
def test_gaussian_has_the_standard_deviation_asked_for(std, key):
    w = draw(f"gaussian:{std}", key)
    np.testing.assert_allclose(w.std(), std, rtol=0.02)
    assert abs(w.mean()) < 0.02 * std
    assert np.abs(w).max() > 3.5 * std  # not truncated, not uniform


def test_glorot_is_uniform_in_its_bounds(key):
    w = draw("glorot", key)
    assert 0.99 * BOUND < np.abs(w).max() <= BOUND * 1.0001
    np.testing.assert_allclose(w.std(), BOUND / np.sqrt(3), rtol=0.02)


@pytest.mark.parametrize(
    ("text", "std"),
    [("glorot:0.1", 0.1 * BOUND / np.sqrt(3)), ("fan_in", 300**-0.5), ("fan_in:2", 2 * 300**-0.5)],
)
def test_gains_scale_the_standard_deviation(text, std, key):
    np.testing.assert_allclose(draw(text, key).std(), std, rtol=0.02)
    assert str(initializers.parse(text)).startswith(text)


@pytest.mark.parametrize(("text", "gain"), [("orthogonal", 1), ("orthogonal:0.5", 0.5)])
def test_orthogonal_has_singular_values_equal_to_the_gain(text, gain, key):
    np.testing.assert_allclose(np.linalg.svd(draw(text, key))[1], gain, rtol=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "glorott",
        "",
        "gaussian",
        "gaussian:x",
        "gaussian:-1",
        "gaussian:nan",
        "glorot:x",
        "gaussian:1:2",
    ],
)
def test_bad_flags_are_quoted(text):
    with pytest.raises(ValueError, match=f"initializer.*{text}"):
        initializers.parse(text)


def test_std_can_be_traced(key):
    stds = jnp.array([0.1, 2.0])
    many = jax.jit(jax.vmap(lambda std: initializers.gaussian(std)(key, (4, 3))))(stds)
    np.testing.assert_allclose(many[1], 20 * many[0], rtol=1e-5)
    np.testing.assert_allclose(many[0], initializers.gaussian(0.1)(key, (4, 3)), rtol=1e-5)


@pytest.fixture(scope="module")
def initial():
    # Equal widths, so that two matrices drawn from one key would be one matrix.
    network = lrajax.mlp((200, 200, 200, 200, 200))
    key = jax.random.key(0)
    made = {name: rule(network).init(key) for name, rule in lrajax.ALGORITHMS.items()}
    return jax.tree.map(np.asarray, made)


@pytest.mark.parametrize("name", lrajax.ALGORITHMS)
def test_default_scales(initial, name):
    params = initial[name]
    for entries, std in ((params.forward, 0.05), (params.feedback, np.sqrt(0.05))):
        for w in (entry["w"] for entry in entries if entry):
            bound = np.sqrt(6 / sum(w.shape))
            if name in ("lra_e", "rec_lra"):
                np.testing.assert_allclose(w.std(), std, rtol=0.05)
            else:
                assert 0.97 * bound < np.abs(w).max() <= 1.0001 * bound
    assert not any(entry["b"].any() for entry in params.forward)


@pytest.mark.parametrize("name", lrajax.ALGORITHMS)
def test_no_two_matrices_come_from_one_key(initial, name):
    matrices = [a for a in jax.tree.leaves(initial[name]) if a.shape == (200, 200)]
    assert len(matrices) >= 3
    for a, b in itertools.combinations(matrices, 2):
        assert abs(diagnostics.angle(a, b) - 90) < 2
        assert abs(diagnostics.angle(a, b.T) - 90) < 2


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_unit_gain_keeps_the_norm_of_lra_es_error_at_any_depth(beta, key):
    """In a linear network the hop is exact; the activation's slope comes on top of it."""
    network = lrajax.mlp((30, 40, *[20] * 30, 10), "identity")
    rule = lrajax.lra_e(network, beta=beta, e_init=initializers.unit_gain(beta))
    batch = lrajax.Batch(jax.random.uniform(key, (5, 30)), jax.nn.one_hot(jnp.arange(5), 10))
    errors = jax.jit(lambda key: rule.compute_targets(rule.init(key), batch).errors)(key)
    norms = np.array([np.linalg.norm(error, axis=1) for error in errors])
    np.testing.assert_allclose(norms, np.broadcast_to(norms[-1], norms.shape), rtol=1e-3)


def test_unit_gain_needs_a_positive_beta():
    with pytest.raises(ValueError, match="unit_gain:BETA"):
        initializers.parse("unit_gain:0")


@pytest.mark.parametrize("scheme", ["glorot", "gaussian:0.05", "orthogonal"])
def test_equal_layers_draw_in_a_loop_what_each_draws_alone(scheme, key):
    """To the last bit, wherever they stand; of the loop's layers one is compiled."""
    network = lrajax.mlp((5, 4, 6, 4, 6, 6, 6, 3))
    initializer = initializers.parse(scheme)

    def in_loops(key):
        return steps.init_forward(network, key, initializer)

    def alone(key):
        keys = jax.random.split(key, len(network.layers))
        return tuple(
            layer.init(own, initializer) for layer, own in zip(network.layers, keys, strict=True)
        )

    chex.assert_trees_all_equal(jax.jit(in_loops)(key), jax.jit(alone)(key))
    deep = jax.make_jaxpr(lambda key: steps.init_forward(lrajax.mlp((6,) * 40), key, initializer))
    loops = [equation.params for equation in deep(key).eqns if equation.primitive.name == "scan"]
    assert [loop["length"] for loop in loops] == [39]
