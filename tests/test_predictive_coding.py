import functools
import math
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax

SIZES = (5, 4, 6, 3, 2)
compute = reference.compute_whole


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def free_energy(forward, states, batch):
    """F of a tanh network, summed over the batch."""
    total, below = 0.0, batch.x
    for theta, state in zip(forward[:-1], states, strict=True):
        total += ((state - jnp.tanh(below @ theta["w"] + theta["b"][None])) ** 2).sum() / 2
        below = state
    h = below @ forward[-1]["w"] + forward[-1]["b"][None]
    return total - (batch.y * jax.nn.log_softmax(h)).sum()


@functools.partial(jax.jit, static_argnums=(3, 4))
def descend(forward, states, batch, steps, step_size):
    for _ in range(steps):
        slopes = jax.grad(free_energy, argnums=1)(forward, states, batch)
        states = tuple(x - step_size * slope for x, slope in zip(states, slopes, strict=True))
    return states


@pytest.mark.filterwarnings("ignore:steps=")
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_relaxation_descends_the_free_energy(x64, steps):
    network = lrajax.mlp(SIZES)
    rule = lrajax.predictive_coding(network, steps=steps, step_size=0.3)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, _ = compute(rule, params, batch)
    expected = descend(params.forward, lambda_.z[:-1], batch, steps, 0.3)
    chex.assert_trees_all_close(lambda_.targets, (*expected, batch.y), rtol=1e-9)
    start = free_energy(params.forward, lambda_.z[:-1], batch)
    assert free_energy(params.forward, expected, batch) < start


def test_update_is_the_gradient_of_the_free_energy_at_the_relaxed_states(x64):
    network = lrajax.mlp(SIZES)
    rule = lrajax.predictive_coding(network, steps=7, step_size=0.3)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, updates = compute(rule, params, batch)
    expected = jax.jit(jax.grad(free_energy))(params.forward, lambda_.targets[:-1], batch)
    chex.assert_trees_all_close(updates.forward, expected, rtol=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_equals_numpy(activation):
    network = lrajax.mlp(SIZES, activation)
    batch = reference.make_batch(network, 7)
    rule = lrajax.predictive_coding(network, steps=3, step_size=0.4)
    params = reference.make_params(rule)

    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    inputs, y = reference.columns(batch)
    _, z = reference.forward(w, b, inputs, activation)
    phi, slope = reference.PHI[activation]

    def units(x):
        h = {l: w[l] @ x[l - 1] + b[l] for l in w}
        e = {l: phi(h[l]) - x[l] for l in (1, 2, 3)}
        delta = {l: e[l] * slope(h[l]) for l in e} | {4: reference.softmax(h[4]) - y}
        return e, delta

    x = {l: z[l] for l in (0, 1, 2, 3)}
    for _ in range(3):
        e, delta = units(x)
        x = {0: inputs} | {l: x[l] + 0.4 * (e[l] - w[l + 1].T @ delta[l + 1]) for l in e}
    _, delta = units(x)

    lambda_, updates = compute(rule, params, batch)
    reference.assert_columns(lambda_.z, z)
    reference.assert_columns(lambda_.targets, {l: x[l] for l in (1, 2, 3)} | {4: y})
    reference.assert_columns(lambda_.errors, {l: z[l] - x[l] for l in (1, 2, 3)} | {4: z[4] - y})
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ x[l - 1].T for l in w},
        {l: delta[l].sum(axis=1) for l in w},
    )


@pytest.mark.filterwarnings("ignore:steps=")
def test_small_steps_give_multiples_of_backprops_updates(x64):
    """(n choose k) εᵏ times backprop's for the k-th layer below the output, as ε → 0."""
    network = lrajax.mlp(SIZES)
    yardstick, n = lrajax.backprop(network), 5
    params, batch = reference.make_params(yardstick), reference.make_batch(network, 7)
    _, exact = compute(yardstick, params, batch)

    def deviations(step_size):
        rule = lrajax.predictive_coding(network, steps=n, step_size=step_size)
        _, updates = compute(rule, params, batch)
        factors = [math.comb(n, k) * step_size**k for k in (3, 2, 1, 0)]
        return np.array(
            [
                np.linalg.norm(ours["w"] / factor - theirs["w"]) / np.linalg.norm(theirs["w"])
                for ours, theirs, factor in zip(
                    updates.forward, exact.forward, factors, strict=True
                )
            ]
        )

    at_step, at_half = deviations(1e-3), deviations(5e-4)
    assert (at_step < 2e-2).all()
    np.testing.assert_allclose(at_step / at_half, 2, rtol=0.02)


@pytest.mark.filterwarnings("ignore:steps=")
@pytest.mark.parametrize("step_size", [1.0, 0.3])
def test_errors_first_to_arrive_are_backprops(network, batch, step_size):
    """After k steps that of the k-th layer below the output, times ε^k; those below are zero.

    With ε = 1 this is the schedule of Song et al. (2020), Z-IL, whose updates are backprop's.
    """
    params = reference.make_params(lrajax.backprop(network))
    exact, _ = compute(lrajax.backprop(network), params, batch)
    for steps in (1, 2, 3):
        rule = lrajax.predictive_coding(network, steps=steps, step_size=step_size)
        lambda_, _ = compute(rule, params, batch)
        arrived = 3 - steps
        np.testing.assert_allclose(
            lambda_.errors[arrived], step_size**steps * exact.errors[arrived], rtol=1e-4, atol=1e-6
        )
        assert not any(np.any(error) for error in lambda_.errors[:arrived])


def settled(**kwargs):
    """The rule once nothing moves by more than 1e-12."""
    kwargs = {"steps": 10**9, "step_size": 0.3, "tolerance": 1e-12} | kwargs
    return lrajax.predictive_coding(lrajax.mlp(SIZES), **kwargs)


def test_states_and_errors_settle_at_the_same_states_in_every_order(x64):
    network = lrajax.mlp(SIZES)
    params, batch = reference.make_params(settled()), reference.make_batch(network, 7)
    lambda_, updates = compute(settled(), params, batch)
    slopes = jax.jit(jax.grad(free_energy, argnums=1))(params.forward, lambda_.targets[:-1], batch)
    assert max(jnp.abs(s).max() for s in slopes) < 1e-10
    assert max(jnp.abs(e).max() for e in lambda_.errors[0]) > 1e-3
    sweeps = {}
    for name, kwargs in {
        "errors": {"coordinates": "errors"},
        "asynchronous": {"order": "asynchronous"},
        "sequential": {"order": "sequential"},
    }.items():
        found, same = compute(settled(**kwargs), params, batch)
        chex.assert_trees_all_close(found.targets, lambda_.targets, atol=1e-9)
        chex.assert_trees_all_close(same, updates, atol=1e-9)
        sweeps[name] = int(found.aux[0].sweeps)
    assert 1 < min(sweeps.values()) < max(sweeps.values()) < 10**4


def test_errors_equal_numpy():
    network = lrajax.mlp(SIZES)
    batch = reference.make_batch(network, 7)
    rule = lrajax.predictive_coding(network, steps=3, step_size=0.4, coordinates="errors", beta=0.5)
    params = reference.make_params(rule)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    inputs, y = reference.columns(batch)
    phi, slope = reference.PHI["tanh"]

    def states(e):
        x, h = {0: inputs}, {}
        for l in w:
            h[l] = w[l] @ x[l - 1] + b[l]
            x[l] = phi(h[l]) - e[l] if l < 4 else reference.softmax(h[l])
        return x, h

    e = {l: np.zeros((len(w[l]), 7)) for l in (1, 2, 3)}
    for _ in range(3):
        x, h = states(e)
        delta = 0.5 * (x[4] - y)
        for l in (3, 2, 1):
            g = w[l + 1].T @ delta
            delta = g * slope(h[l])
            e[l] = e[l] + 0.4 * (g - e[l])
    x, h = states(e)
    delta = {l: e[l] * slope(h[l]) for l in e} | {4: 0.5 * (x[4] - y)}

    lambda_, updates = compute(rule, params, batch)
    reference.assert_columns(lambda_.targets, {l: x[l] for l in (1, 2, 3)} | {4: y})
    reference.assert_updates(
        updates.forward,
        {l: delta[l] @ x[l - 1].T / 0.5 for l in w},
        {l: delta[l].sum(axis=1) / 0.5 for l in w},
    )


def test_one_step_of_errors_is_backprop(x64):
    """Its errors exactly; its updates up to what they move the states by, which falls with β."""
    network = lrajax.mlp(SIZES)
    yardstick = lrajax.backprop(network)
    params, batch = reference.make_params(yardstick), reference.make_batch(network, 7)
    exact, gradient = compute(yardstick, params, batch)
    gaps = []
    for beta in (0.02, 0.01):
        rule = lrajax.predictive_coding(
            network, steps=1, step_size=1.0, coordinates="errors", beta=beta
        )
        lambda_, updates = compute(rule, params, batch)
        for ours, theirs in zip(lambda_.aux[0].deltas[:1], exact.errors[:1], strict=True):
            slope = 1 - exact.z[0] ** 2
            np.testing.assert_allclose(ours, beta * slope * theirs, rtol=1e-9)
        gap = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), updates.forward, gradient.forward)
        gaps.append(np.array(jax.tree.leaves(gap)))
    np.testing.assert_allclose(gaps[0][2:] / gaps[1][2:], 2, rtol=0.05)
    assert gaps[1].max() < 0.05
    assert gaps[1][:2].max() < 1e-9  # the lowest layer's input is clamped: backprop's update


def test_errors_outlive_a_weak_nudge_in_single_precision(network, batch):
    """x = μ - e would round an e of a millionth away."""
    rule = lrajax.predictive_coding(
        network, steps=2, step_size=1.0, coordinates="errors", beta=1e-6
    )
    reference = lrajax.backprop(network)
    params = rule.init(jax.random.key(0))
    angles_of = functools.partial(lrajax.diagnostics.update_angles_to_backprop, reference, rule)
    angles, _ = jax.jit(angles_of)(params, batch)
    np.testing.assert_allclose(angles, 0, atol=0.05)


@pytest.mark.parametrize(("nudge", "order"), [("positive", 1), ("centred", 2)])
def test_a_settled_update_tends_to_the_gradient_with_the_nudge(x64, nudge, order):
    network = lrajax.mlp(SIZES)
    params, batch = reference.make_params(settled()), reference.make_batch(network, 7)
    _, exact = compute(lrajax.backprop(network), params, batch)
    gaps = []
    for beta in (0.02, 0.01):
        rule = settled(nudge=nudge, beta=beta, coordinates="errors", step_size=0.9)
        _, updates = compute(rule, params, batch)
        gap = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), updates, exact)
        gaps.append(np.array(jax.tree.leaves(gap)))
    np.testing.assert_allclose(gaps[0] / gaps[1], 2.0**order, rtol=0.1)


@pytest.mark.filterwarnings("ignore:steps=")
@pytest.mark.parametrize("coordinates", ["states", "errors"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_an_incremental_update_is_the_sum_of_those_at_every_step(coordinates, reduction):
    network = lrajax.mlp(SIZES)
    make = functools.partial(
        lrajax.predictive_coding,
        network,
        step_size=0.3,
        coordinates=coordinates,
        reduction=reduction,
        nudge="centred",
    )
    params, batch = reference.make_params(make()), reference.make_batch(network, 7)
    each = [compute(make(steps=n), params, batch)[1] for n in (1, 2, 3)]
    lambda_, updates = compute(make(steps=3, incremental=True), params, batch)
    total = jax.tree.map(lambda *a: sum(a), *each)
    chex.assert_trees_all_close(updates, total, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(
        lambda_.targets, compute(make(steps=3), params, batch)[0].targets, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:steps=")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_incremental_updates_of_examples_alone_are_those_of_the_mini_batch(steps):
    network = lrajax.mlp(SIZES)
    rule = lrajax.predictive_coding(network, steps=steps, step_size=0.3, incremental=True)
    params, batch = reference.make_params(rule), reference.make_batch(network, 3)
    singles = [jax.tree.map(lambda a, i=i: a[i : i + 1], batch) for i in range(3)]
    each = [compute(rule, params, single)[1] for single in singles]
    _, updates = compute(rule, params, batch)
    chex.assert_trees_all_close(
        updates, jax.tree.map(lambda *a: sum(a), *each), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("hidden_layers", [12, 16, 20])
def test_deep_networks_get_a_signal_or_a_warning(hidden_layers):
    network = lrajax.mlp((5, *[6] * hidden_layers, 2))
    with pytest.warns(UserWarning, match=rf"lowest of {hidden_layers} .*coordinates=.errors"):
        lrajax.predictive_coding(network)
    rule = lrajax.predictive_coding(network, coordinates="errors")
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    _, updates = compute(rule, params, batch)
    assert all(np.any(layer["w"]) for layer in updates.forward)


def test_one_sweep_in_turn_reaches_the_lowest_layer_and_needs_no_warning():
    network = lrajax.mlp((5, 6, 6, 6, 2))
    one_step = {"steps": 1, "step_size": 0.5}
    lrajax.predictive_coding(network, order="sequential", **one_step)  # warnings are errors
    with pytest.warns(UserWarning, match="lowest of 3 hidden layers 0"):
        lrajax.predictive_coding(network, **one_step)


def test_the_warning_comes_where_float32_gets_nothing():
    """The lowest update at the last depth without it is not zero, at the first with it none."""
    lowest = {}
    for hidden_layers in (8, 12):
        network = lrajax.mlp((5, *[6] * hidden_layers, 2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rule = lrajax.predictive_coding(network)
        params, batch = reference.make_params(rule), reference.make_batch(network, 7)
        params = params._replace(forward=jax.tree.map(lambda a: a / 2, params.forward))
        _, updates = compute(rule, params, batch)
        lowest[hidden_layers] = bool(caught), bool(np.any(updates.forward[0]["w"]))
    assert lowest == {8: (False, True), 12: (True, False)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"coordinates": "error"}, "coordinates='error'.*'errors'"),
        ({"order": "synchron"}, "order='synchron'.*'synchronous'"),
        ({"nudge": "centered"}, "nudge='centered'.*'centred'"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"tolerance": -1.0}, "tolerance=-1.0"),
        ({"tolerance": 1e-3, "incremental": True}, "tolerance=.*incremental"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        lrajax.predictive_coding(lrajax.mlp(SIZES), **kwargs)


def test_without_hidden_layers_there_is_nothing_to_settle():
    network = lrajax.Network((lrajax.dense(5, 2, "softmax"),), lrajax.losses.categorical)
    batch = reference.make_batch(network, 3)
    updates = []
    for tolerance in (None, 1e-3):
        rule = lrajax.predictive_coding(network, tolerance=tolerance)
        updates.append(reference.compute_whole(rule, rule.init(jax.random.key(0)), batch)[1])
    chex.assert_trees_all_equal(*updates)
