import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import lrajax

SIZES = (5, 4, 6, 3, 2)
compute = jax.jit(reference.compute, static_argnums=0)


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
