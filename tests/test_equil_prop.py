import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax

SIZES = (5, 4, 3, 2)
compute = jax.jit(reference.compute, static_argnums=0)


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
        sign = int(np.sign(lambda_.aux[2]))
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


def test_tolerance_reaches_the_fixed_point_of_many_steps(x64):
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    many = settled(network)
    stopped = settled(network, tolerance=1e-10, free_steps=10**9, nudged_steps=10**9)
    chex.assert_trees_all_close(
        compute(many, params, batch), compute(stopped, params, batch), atol=1e-8
    )


@pytest.mark.parametrize(
    ("capped", "same"),
    [
        # nothing moves by more than 10 in a box of side 1, so a phase stops after its first step
        ({"tolerance": 10.0, "free_steps": 50, "nudged_steps": 50}, (1, 1)),
        ({"tolerance": 0.0, "free_steps": 3, "nudged_steps": 2}, (3, 2)),
    ],
)
def test_tolerance_stops_a_phase_and_steps_cap_it(capped, same):
    network = lrajax.mlp(SIZES)
    params = interior_params(lrajax.equil_prop(network))
    batch = reference.make_batch(network, 7)
    plain = settled(network, free_steps=same[0], nudged_steps=same[1])
    chex.assert_trees_all_close(
        compute(settled(network, **capped), params, batch),
        compute(plain, params, batch),
        atol=1e-6,
    )


def test_rates_scale_each_layer():
    network = lrajax.mlp(SIZES)
    rule = settled(network, free_steps=5, nudged_steps=3)
    params, batch = reference.make_params(rule), reference.make_batch(network, 7)
    rates = (1.0, 0.5, 0.1)
    _, plain = compute(rule, params, batch)
    _, scaled = compute(settled(network, free_steps=5, nudged_steps=3, rates=rates), params, batch)
    for a, b, rate in zip(plain.forward, scaled.forward, rates, strict=True):
        chex.assert_trees_all_close(jax.tree.map(lambda u, rate=rate: rate * u, a), b, rtol=1e-5)
