import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax
from lrajax.base import IndexedBatch

SIZES = (5, 4, 3, 2)
compute = reference.compute_whole


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def interior_params(rule):
    """Weights so small, around biases of 1/2, that every state stays strictly inside (0, 1)."""
    params = reference.make_params(rule)
    forward = [{"w": 0.3 * layer["w"], "b": 0.5 + 0.1 * layer["b"]} for layer in params.forward]
    for layer in forward[1:]:
        layer["w"] *= 0.6
    return params._replace(forward=tuple(forward))


def energy(params, x, s):
    """E(s) = Σ_l ½‖s^l‖² - s^l·(W^l s^{l-1} + b^l), summed over the batch."""
    total, below = 0.0, x
    for theta, state in zip(params.forward, s, strict=True):
        total += (state**2).sum() / 2 - (state * (below @ theta["w"] + theta["b"][None, :])).sum()
        below = state
    return total


def settled(network, **kwargs):
    kwargs = {"free_steps": 400, "nudged_steps": 400, "nudge": "positive"} | kwargs
    return lrajax.equil_prop(network, **kwargs)


def strictly_inside(lambda_):
    states = jax.tree.leaves((lambda_.z, lambda_.targets))
    return all(((s > 0.01) & (s < 0.99)).all() for s in states)


def test_free_phase_ends_at_a_stationary_point_of_the_energy_in_the_box(x64):
    network = lrajax.mlp(SIZES)
    rule = settled(network, step_size=0.2)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    lambda_, _ = compute(rule, params, batch)
    slopes = jax.jit(jax.grad(energy, argnums=2))(params, batch.x, lambda_.z)
    s, slope = (np.concatenate(jax.tree.map(np.ravel, t)) for t in (lambda_.z, slopes))
    inside = (s > 0) & (s < 1)
    np.testing.assert_allclose(slope[inside], 0, atol=1e-9)
    assert (slope[s == 0] > 0).all()
    assert (slope[s == 1] < 0).all()
    assert all(where.any() for where in (inside, s == 0, s == 1))


def test_the_nudge_moves_the_fixed_point_by_the_force_of_the_cost(x64):
    network = lrajax.mlp(SIZES)
    rule = settled(network, beta=0.3)
    params, batch = interior_params(rule), reference.make_batch(network, 7)
    lambda_, _ = compute(rule, params, batch)

    def total(s):
        return energy(params, batch.x, s) + 0.3 * ((batch.y - s[-1]) ** 2).sum() / 2

    assert strictly_inside(lambda_)
    chex.assert_trees_all_close(
        jax.jit(jax.grad(total))(lambda_.targets),
        jax.tree.map(jnp.zeros_like, lambda_.z),
        atol=1e-9,
    )


def cost_gradient(params, batch, steps=200):
    """Gradient of ½‖y - s^L‖² at the fixed point, through the whole relaxation."""

    def cost(params):
        def step(s, _):
            force = jax.grad(energy, argnums=2)(params, batch.x, s)
            return tuple(a - 0.5 * f for a, f in zip(s, force, strict=True)), None

        start = tuple(jnp.zeros((len(batch.x), len(theta["b"]))) for theta in params.forward)
        s, _ = jax.lax.scan(step, start, length=steps)
        return ((batch.y - s[-1]) ** 2).sum() / 2

    return jax.jit(jax.grad(cost))(params)


@pytest.mark.parametrize(("nudge", "order"), [("positive", 1), ("centred", 2)])
def test_update_tends_to_the_gradient_of_the_cost(x64, nudge, order):
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    exact = cost_gradient(params, batch)

    @jax.jit
    def at(beta):
        lambda_, updates = compute(settled(network, nudge=nudge, beta=beta), params, batch)
        return lambda_, jax.tree.map(lambda a, b: jnp.abs(a - b).max(), updates, exact)

    deviations = []
    for beta in (0.02, 0.01, 1e-4):
        lambda_, deviation = at(beta)
        assert strictly_inside(lambda_)
        deviations.append(np.array(jax.tree.leaves(deviation)))
    np.testing.assert_allclose(deviations[0] / deviations[1], 2.0**order, rtol=0.05)
    smallest = min(np.abs(g).max() for g in jax.tree.leaves(exact))
    assert deviations[2].max() < 1e-2 * smallest
    chex.assert_trees_all_close(
        lambda_.errors[-1], jax.tree.map(lambda s, y: s - y, lambda_.z[-1], batch.y), rtol=0.1
    )


def test_centred_update_is_the_mean_of_the_two_one_sided_ones(x64):
    """And a random sign is one of these, drawn by the key."""
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    random = lrajax.equil_prop(network, beta=0.4)
    of_key = jax.jit(lambda key: compute(random, params, batch, key))
    by_sign = {}
    for seed in range(12):
        lambda_, updates = of_key(jax.random.key(seed))
        sign = int(np.sign(lambda_.aux.distance))
        chex.assert_trees_all_equal(updates, by_sign.setdefault(sign, updates))
    assert set(by_sign) == {-1, 1}
    _, positive = compute(lrajax.equil_prop(network, beta=0.4, nudge="positive"), params, batch)
    _, centred = compute(lrajax.equil_prop(network, beta=0.4, nudge="centred"), params, batch)
    chex.assert_trees_all_close(by_sign[1], positive, atol=1e-12)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, by_sign[1], by_sign[-1])
    chex.assert_trees_all_close(mean, centred, atol=1e-12)
    assert np.abs(by_sign[1].forward[0]["w"] - by_sign[-1].forward[0]["w"]).max() > 1e-4


def test_steps_are_euler_steps_from_zero_clipped_to_the_box():
    network = lrajax.mlp(SIZES)
    rule = settled(network, free_steps=3, nudged_steps=2, step_size=0.4, beta=0.7)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    x, y = reference.columns(batch)

    def step(s, beta):
        force = {l: w[l] @ s[l - 1] + b[l] - s[l] for l in (1, 2, 3)}
        for l in (1, 2):
            force[l] = force[l] + w[l + 1].T @ s[l + 1]
        force[3] = force[3] + beta * (y - s[3])
        return {0: x} | {l: np.clip(s[l] + 0.4 * force[l], 0, 1) for l in (1, 2, 3)}

    free = {0: x} | {l: np.zeros((len(w[l]), 7)) for l in (1, 2, 3)}
    for _ in range(3):
        free = step(free, 0.0)
    nudged = step(step(free, 0.7), 0.7)

    lambda_, updates = compute(rule, params, batch)
    reference.assert_columns(lambda_.z, free)
    reference.assert_columns(lambda_.targets, nudged)
    reference.assert_columns(lambda_.errors, {l: (free[l] - nudged[l]) / 0.7 for l in w})
    np.testing.assert_allclose(rule.predict(params, batch.x).T, free[3], atol=1e-5)
    dw = {l: -(nudged[l] @ nudged[l - 1].T - free[l] @ free[l - 1].T) / 0.7 for l in w}
    db = {l: -(nudged[l] - free[l]).sum(axis=1) / 0.7 for l in w}
    reference.assert_updates(updates.forward, dw, db)


def settled_by(order, params, batch, **kwargs):
    """Λ and updates once no state moves by more than 1e-10 in a sweep."""
    steps = {"tolerance": 1e-10, "free_steps": 10**9, "nudged_steps": 10**9}
    return compute(settled(lrajax.mlp(SIZES), order=order, **steps, **kwargs), params, batch)


def test_tolerance_reaches_the_fixed_point_of_many_steps_in_every_order(x64):
    """And whole steps in turn reach it in fewer sweeps than half ones of all layers at once."""
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    lambda_, updates = compute(settled(network, beta=0.2), params, batch)
    assert [p.sweeps for p in lambda_.aux[:3]] == [400, 400, 400]
    made = {}
    for order, step_size in {"synchronous": 0.5, "asynchronous": 1.0, "sequential": 1.0}.items():
        found, same = settled_by(order, params, batch, step_size=step_size, beta=0.2)
        chex.assert_trees_all_close(same, updates, atol=1e-7)
        chex.assert_trees_all_close(found.z, lambda_.z, atol=1e-9)
        made[order] = int(found.aux.free.sweeps), int(found.aux.second.sweeps)
    for free, nudged in (made["asynchronous"], made["sequential"]):
        assert 1 < free < 0.4 * made["synchronous"][0]
        assert 1 < nudged < 0.4 * made["synchronous"][1]


@pytest.mark.parametrize(
    ("order", "turns"),
    [("asynchronous", [(1, 3), (2,)]), ("sequential", [(1,), (2,), (3,)])],
)
def test_layers_move_in_turn_upwards_when_free_and_downwards_when_nudged(order, turns):
    network = lrajax.mlp(SIZES)
    kwargs = {"free_steps": 2, "nudged_steps": 1, "step_size": 0.8, "beta": 0.7, "feedback": 0.6}
    rule = settled(network, order=order, low=-1.0, **kwargs)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    w, b = reference.paper(params.forward), reference.paper(params.forward, "b")
    x, y = reference.columns(batch)

    def sweep(s, turns, beta):
        for turn in turns:
            old = dict(s)
            for l in turn:
                force = w[l] @ old[l - 1] + b[l] - old[l]
                if l < 3:
                    force = force + 0.6 * w[l + 1].T @ old[l + 1]
                else:
                    force = force + beta * (y - old[3])
                s[l] = np.clip(old[l] + 0.8 * force, -1 if l < 3 else 0, 1)
        return s

    s = {0: x} | {l: np.zeros((len(w[l]), 7)) for l in (1, 2, 3)}
    free = dict(sweep(sweep(s, turns, 0.0), turns, 0.0))
    # three layers: the even ones are the outer ones, from either end
    down = turns if order == "asynchronous" else turns[::-1]
    nudged = sweep(dict(free), down, 0.7)

    lambda_, updates = compute(rule, params, batch)
    reference.assert_columns(lambda_.z, free)
    reference.assert_columns(lambda_.targets, nudged)
    assert min(s.min() for s in free.values()) < 0
    scale = {l: 0.6 ** (l - 3) / 0.7 for l in w}
    dw = {l: -scale[l] * (nudged[l] @ nudged[l - 1].T - free[l] @ free[l - 1].T) for l in w}
    db = {l: -scale[l] * (nudged[l] - free[l]).sum(axis=1) for l in w}
    reference.assert_updates(updates.forward, dw, db)


def test_an_asynchronous_sweep_of_an_even_number_of_layers_starts_where_the_news_is():
    """From the input in a free phase, from the label in a nudged one: two layers a sweep."""
    sizes = (5, 4, 3, 4, 2)
    network = lrajax.mlp(sizes)
    rule = settled(network, order="asynchronous", step_size=1.0, free_steps=1, nudged_steps=1)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    params = params._replace(forward=jax.tree.map(jnp.abs, params.forward))
    params = jax.tree.map(lambda a: a if a.ndim == 2 else 0 * a, params)  # no bias is news
    lambda_, _ = compute(rule, params, batch)
    assert [bool(s.any()) for s in lambda_.z] == [True, True, False, False]
    moved = [bool((a != b).any()) for a, b in zip(lambda_.z, lambda_.targets, strict=True)]
    assert moved[3]
    assert moved[2]


def test_weak_feedback_and_nudge_give_backprops_update(x64):
    """Of the network whose units are clipped as the states are, with the cost ½‖y - z‖²."""

    def clipped(h):
        return jnp.clip(h, 0, 1)

    layers = [layer._replace(post=clipped) for layer in lrajax.mlp(SIZES).layers]
    network = lrajax.Network((*layers,), lrajax.losses.half_squared)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)

    def cost(forward):
        z = batch.x
        for theta in forward:
            z = clipped(z @ theta["w"] + theta["b"][None])
        return ((batch.y - z) ** 2).sum() / 2

    exact = jax.jit(jax.grad(cost))(params.forward)
    deviations = []
    for small in (0.02, 0.01):
        settings = {"feedback": small, "beta": small, "nudge": "centred"}
        lambda_, updates = settled_by("sequential", params, batch, step_size=1.0, **settings)
        assert strictly_inside(lambda_)
        gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), updates.forward, exact)
        deviations.append(np.array(jax.tree.leaves(gaps)))
    np.testing.assert_allclose(deviations[0] / deviations[1], 2, rtol=0.2)
    assert deviations[1].max() < 0.05 * max(np.abs(g).max() for g in jax.tree.leaves(exact))


def test_persistent_states_are_those_of_the_examples_last_time():
    network = lrajax.mlp(SIZES)
    steps = {"free_steps": 3, "nudged_steps": 2}
    rule = settled(network, persistent=True, **steps)
    params, batch = reference.make_params(rule), reference.make_batch(network, 3)
    rows = jnp.array([4, 0, 2])
    indexed = IndexedBatch(*batch, rows)
    state = rule.init_state(params, 6)
    assert [s.shape for s in state] == [(6, n) for n in SIZES[1:]]

    @jax.jit
    def twice(state):
        first = rule.compute_targets(params, indexed, state=state)
        return first, rule.compute_targets(params, indexed, state=first.state)

    first, second = twice(state)
    once = compute(settled(network, **steps), params, batch)[0]
    longer = compute(settled(network, **(steps | {"free_steps": 6})), params, batch)[0]
    chex.assert_trees_all_close(first.z, once.z, atol=1e-6)
    chex.assert_trees_all_close(second.z, longer.z, atol=1e-6)
    for kept, z in zip(second.state, second.z, strict=True):
        np.testing.assert_array_equal(kept[rows], z)
        assert not np.asarray(kept)[[1, 3, 5]].any()
    assert once.state == ()
    with pytest.raises(ValueError, match="num_examples=None"):
        rule.init_state(params, None)


@pytest.mark.parametrize(
    ("capped", "sweeps"),
    [
        # nothing moves by more than 10 in a box of side 1, so a phase stops after its first step
        ({"tolerance": 10.0, "free_steps": 50, "nudged_steps": 50}, (1, 1)),
        ({"tolerance": 0.0, "free_steps": 3, "nudged_steps": 2}, (3, 2)),
    ],
)
def test_tolerance_stops_a_phase_and_steps_cap_it(capped, sweeps):
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    plain = settled(network, free_steps=sweeps[0], nudged_steps=sweeps[1])
    found, updates = compute(settled(network, **capped), params, batch)
    expected, same = compute(plain, params, batch)
    chex.assert_trees_all_close((found.z, updates), (expected.z, same), atol=1e-6)
    assert (found.aux.free.sweeps, found.aux.second.sweeps) == sweeps


def test_rates_scale_each_layer():
    network = lrajax.mlp(SIZES)
    rule = settled(network, free_steps=5, nudged_steps=3)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    rates = (1.0, 0.5, 0.1)
    _, plain = compute(rule, params, batch)
    _, scaled = compute(settled(network, free_steps=5, nudged_steps=3, rates=rates), params, batch)
    for a, b, rate in zip(plain.forward, scaled.forward, rates, strict=True):
        chex.assert_trees_all_close(jax.tree.map(lambda u, rate=rate: rate * u, a), b, rtol=1e-5)
