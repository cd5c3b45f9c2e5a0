"""What holds for every rule on any small network, with hypothesis choosing what goes through it."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import reference

import lrajax
from lrajax import Batch

RULES = sorted(lrajax.ALGORITHMS)
ACTIVATIONS = ("tanh", "sigmoid", "relu", "softplus", "identity")
NETWORKS = 3  # of each rule
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
# The same examples in every run.
some = hypothesis.settings(deadline=None, max_examples=3, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
on_networks = pytest.mark.parametrize(
    ("rule", "number"), list(itertools.product(RULES, range(NETWORKS)))
)


class Problem(NamedTuple):
    """A rule on a network: compiled once for all properties, since that takes most of their time.

    Attributes:
      draw: parameters and a mini-batch of a seed, as NumPy's arrays.
      predict: the rule's prediction.
      update: its update.
      updates: those of several parameters, with a key each.
    """

    draw: Callable
    predict: Callable
    update: Callable
    updates: Callable


@functools.cache
def make(rule, number):
    """The problem of this number: an even batch, whose update is the sum of its examples."""
    rng = np.random.default_rng((RULES.index(rule), number))
    network = lrajax.mlp(
        rng.integers(1, 7, size=3 + number).tolist(),
        ACTIVATIONS[(RULES.index(rule) + number) % len(ACTIVATIONS)],
    )
    batch_size = 2 * int(rng.integers(1, 5))
    algo = lrajax.ALGORITHMS[rule](network, **lrajax.RULES[rule].plain)

    def draw(seed):
        drawn = reference.make_params(algo, seed), reference.make_batch(network, batch_size, seed)
        return jax.tree.map(np.asarray, drawn)

    def update(params, batch, key):
        return algo.calc_updates(params, algo.compute_targets(params, batch, key=key))

    return Problem(
        draw, compiled(algo.predict), compiled(update), compiled(jax.vmap(update, (0, None, 0)))
    )


def compiled(function):
    """Compiled, and with results of NumPy: no operation on them is compiled too."""
    program = jax.jit(function)
    return lambda *arguments: jax.tree.map(np.asarray, program(*arguments))


@on_networks
@some
@hypothesis.given(seeds)
def test_updates_are_a_tree_like_params_and_blank_images_teach_biases_alone(rule, number, seed):
    problem = make(rule, number)
    params, batch = problem.draw(seed)
    # drawn pixels, and all black or all white
    for x in (batch.x, np.zeros_like(batch.x), np.ones_like(batch.x)):
        updates = problem.update(params, Batch(x, batch.y), KEY)
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
    drawn = [a for a in map(np.asarray, jax.tree.leaves(params)) if a.any()]
    assert len(drawn) >= 5
    for a, b in itertools.combinations(drawn, 2):
        assert not np.isin(a, b).any()


@on_networks
@some
@hypothesis.given(seeds)
def test_vmap_is_a_loop(rule, number, seed):
    problem = make(rule, number)
    params, batch = problem.draw(seed)
    several = [params, jax.tree.map(lambda a: a / 2, params), jax.tree.map(np.negative, params)]
    at_once = problem.updates(jax.tree.map(lambda *a: np.stack(a), *several), batch, KEYS)
    for i, each in enumerate(several):
        found = jax.tree.map(lambda a, i=i: a[i], at_once)
        expected = problem.update(each, batch, KEYS[i])
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


# DTP-sigma's noise follows from means over the mini-batch, so what is said of the parts is not
# said of the whole.
@pytest.mark.parametrize("number", range(NETWORKS))
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "dtp_sigma"])
@some
@hypothesis.given(seeds, st.data())
def test_a_batch_is_the_sum_of_its_parts(rule, number, seed, data):
    problem = make(rule, number)
    params, batch = problem.draw(seed)
    rows = np.array(data.draw(st.permutations(range(len(batch.x)))))
    # Each half twice, so that all mini-batches have one shape.
    twice = (np.concatenate([half, half]) for half in np.split(rows, 2))
    parts = (problem.update(params, Batch(batch.x[of], batch.y[of]), KEY) for of in twice)
    total = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    whole = problem.update(params, batch, KEY)
    chex.assert_trees_all_close(total, whole, rtol=1e-4, atol=1e-5)


def permute(tree, layer, order, direct):
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
    if feedback[layer] and not direct:
        feedback[layer] = {"w": feedback[layer]["w"][:, order]} | {
            name: a for name, a in feedback[layer].items() if name != "w"
        }
    if feedback[layer + 1]:
        feedback[layer + 1] = above(feedback[layer + 1], outputs_too=True)
    return type(tree)(tuple(forward), tuple(feedback))


def from_the_output(rule):
    """Whether feedback comes straight from the output: E has not the shape of W then."""
    algo = lrajax.ALGORITHMS[rule](lrajax.mlp((2, 3, 4, 5)))
    _, e, _ = jax.eval_shape(algo.init, KEY).feedback
    return bool(e) and e["w"].shape != (3, 4)


@on_networks
@some
@hypothesis.given(seeds, st.data())
def test_hidden_units_have_no_names(rule, number, seed, data):
    """Permuting the units of a hidden layer permutes the update, and changes no prediction."""
    problem = make(rule, number)
    params, batch = problem.draw(seed)
    layer = data.draw(st.integers(0, len(params.forward) - 2))
    width = len(params.forward[layer]["b"])
    order = np.array(data.draw(st.permutations(range(width))))
    change = functools.partial(permute, layer=layer, order=order, direct=from_the_output(rule))
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-3, atol=1e-4)
    close(problem.predict(change(params), batch.x), problem.predict(params, batch.x))
    close(problem.update(change(params), batch, KEY), change(problem.update(params, batch, KEY)))


@on_networks
@some
@hypothesis.given(seeds)
def test_float64_agrees_with_float32(rule, number, seed):
    problem = make(rule, number)
    params, batch = problem.draw(seed)
    single = problem.update(params, batch, KEY)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(np.float64), (params, batch))
        double = problem.update(*wide, KEY)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
