"""What holds for every rule on any small network, with hypothesis choosing the network."""

import functools
import itertools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax import Batch

RULES = sorted(lrajax.ALGORITHMS)
ACTIVATIONS = ("tanh", "sigmoid", "relu", "softplus", "identity")
# Each example compiles a program, so few of them; the same ones in every run.
some = hypothesis.settings(deadline=None, max_examples=3, derandomize=True)
widths = st.lists(st.integers(1, 6), min_size=3, max_size=4).map(tuple)
problems = st.fixed_dictionaries(
    {
        "sizes": widths,
        "activation": st.sampled_from(ACTIVATIONS),
        "batch_size": st.integers(1, 9),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def make(rule, sizes, activation, batch_size, seed, **arguments):
    """The rule's prediction and update as compiled functions, parameters and a mini-batch."""
    network = lrajax.mlp(sizes, activation)
    algo = lrajax.ALGORITHMS[rule](network, **lrajax.RULES[rule].plain, **arguments)

    def update(params, batch, key):
        return algo.calc_updates(params, algo.compute_targets(params, batch, key=key))

    params = reference.make_params(algo, seed)
    batch = reference.make_batch(network, batch_size, seed)
    return quick(algo.predict), quick(update), params, batch


def quick(function):
    """Compiled, without the optimisations that would take most of these tests' time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


KEY = jax.random.key(0)


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(problems)
def test_updates_are_a_tree_like_params_and_blank_images_teach_biases_alone(rule, problem):
    _, update, params, batch = make(rule, **problem)
    # drawn pixels, and all black or all white
    for x in (batch.x, jnp.zeros_like(batch.x), jnp.ones_like(batch.x)):
        updates = update(params, Batch(x, batch.y), KEY)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_tree_all_finite(updates)
        if x is not batch.x:  # Σ x e, so that every pixel's weights do as the biases, or nothing
            w, b = updates.forward[0]["w"], updates.forward[0]["b"]
            np.testing.assert_allclose(w, x[:1].T * b[None, :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_no_two_weights_are_drawn_alike(rule):
    """All of one shape and one scheme, so that two drawn from the same key would be equal."""
    scheme = lrajax.initializers.gaussian(1.0)
    names = lrajax.RULES[rule].hyperparameters
    arguments = {name: scheme for name in ("w_init", "e_init") if name in names}
    params = lrajax.ALGORITHMS[rule](lrajax.mlp((3,) * 6), **arguments).init(KEY)
    drawn = [np.asarray(leaf) for leaf in jax.tree.leaves(params) if leaf.any()]
    assert len(drawn) >= 5
    for a, b in itertools.combinations(drawn, 2):
        assert not np.isin(a, b).any()


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(problems)
def test_vmap_is_a_loop(rule, problem):
    _, update, params, batch = make(rule, **problem)
    several = [params, jax.tree.map(lambda a: a / 2, params), jax.tree.map(jnp.negative, params)]
    keys = jax.random.split(KEY, len(several))
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *several)
    at_once = quick(jax.vmap(update.__wrapped__, (0, None, 0)))(stacked, batch, keys)
    for i, each in enumerate(several):
        found = jax.tree.map(lambda a, i=i: a[i], at_once)
        expected = update(each, batch, keys[i])
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


# DTP-sigma's noise follows from means over the mini-batch, so what is said of the parts is not
# said of the whole.
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "dtp_sigma"])
@some
@hypothesis.given(problems, st.data())
def test_a_batch_is_the_sum_of_its_parts(rule, problem, data):
    size = problem["batch_size"]
    problem = {**problem, "batch_size": 2 * size}
    _, update, params, batch = make(rule, **problem, reduction="sum")
    rows = np.array(data.draw(st.permutations(range(2 * size))))
    parts = (Batch(batch.x[half], batch.y[half]) for half in (rows[:size], rows[size:]))
    total = jax.tree.map(jnp.add, *(update(params, part, KEY) for part in parts))
    chex.assert_trees_all_close(total, update(params, batch, KEY), rtol=1e-4, atol=1e-5)


def permute(tree, layer, order):
    """A tree like params with the units of a hidden layer in another order."""

    def own(entry):
        return {name: a[..., order] for name, a in entry.items()}

    def above(entry, outputs_too=False):
        # `w` has a row for each unit below; a decoder's `b` one for each too.
        return {name: a[order] for name, a in entry.items() if name == "w"} | {
            name: a[order] if outputs_too else a for name, a in entry.items() if name != "w"
        }

    forward, feedback = list(tree.forward), list(tree.feedback)
    forward[layer] = own(forward[layer])
    forward[layer + 1] = above(forward[layer + 1])
    direct = feedback[layer] and feedback[layer]["w"].shape != tree.forward[layer]["w"].shape
    if feedback[layer] and not direct:
        feedback[layer] = {"w": feedback[layer]["w"][:, order]} | {
            name: a for name, a in feedback[layer].items() if name != "w"
        }
    if feedback[layer + 1]:
        feedback[layer + 1] = above(feedback[layer + 1], outputs_too=True)
    return type(tree)(tuple(forward), tuple(feedback))


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(problems, st.data())
def test_hidden_units_have_no_names(rule, problem, data):
    """Permuting the units of a hidden layer permutes the update, and changes no prediction."""
    # Wider than any output, so that DFA's feedback is told from one that mirrors W by its shape.
    problem = {**problem, "sizes": (problem["sizes"][0], 7, 8, *problem["sizes"][2:])}
    predict, update, params, batch = make(rule, **problem)
    layer = data.draw(st.integers(0, 1))
    order = np.array(data.draw(st.permutations(range(7 + layer))))
    there = permute(params, layer, order)
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-3, atol=1e-4)
    close(predict(there, batch.x), predict(params, batch.x))
    close(update(there, batch, KEY), permute(update(params, batch, KEY), layer, order))


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(problems)
def test_float64_agrees_with_float32(rule, problem):
    _, update, params, batch = make(rule, **problem)
    single = update(params, batch, KEY)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (params, batch))
        double = update(*wide, KEY)
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
            assert b.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
