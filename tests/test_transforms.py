import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrajax

UPDATES = {
    "w": jnp.array([[3.0, 0.0], [0.0, 4.0]]),
    "b": jnp.array([1e-3, 0.0, 0.0]),
    "fixed": jnp.zeros(2),
}
UNIT = {
    "w": [[0.6, 0.0], [0.0, 0.8]],
    "b": [1.0, 0.0, 0.0],
    "fixed": [0.0, 0.0],
}


def close(actual, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-4, atol=1e-7)


def test_every_array_gets_unit_norm_and_keeps_its_direction():
    transform = lrajax.normalize_updates()
    updates, _ = jax.jit(transform.update)(UPDATES, transform.init(UPDATES))
    close(updates, UNIT)


def test_chained_before_sgd_every_array_moves_by_the_rate():
    optimizer = optax.chain(lrajax.normalize_updates(), optax.sgd(0.5))
    deltas, _ = optimizer.update(UPDATES, optimizer.init(UPDATES))
    close(deltas, {name: -0.5 * np.array(array) for name, array in UNIT.items()})


def test_runs_under_vmap_are_normalised_each_by_itself():
    transform = lrajax.normalize_updates()
    several = jax.tree.map(lambda u: jnp.stack([u, 10 * u]), UPDATES)
    updates, _ = jax.vmap(transform.update)(several, transform.init(UPDATES))
    for run in range(2):
        close(jax.tree.map(lambda u, run=run: u[run], updates), UNIT)


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e-9, 1e10, 1e37])
def test_a_tiny_or_huge_update_gets_unit_norm_too(scale):
    updates, _ = lrajax.normalize_updates().update({"w": scale * jnp.array([3.0, -4.0])}, ())
    np.testing.assert_allclose(updates["w"], [0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e4])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_kept_and_survives(scale, dtype):
    updates = {"w": scale * jnp.array([3, -4], dtype), "fixed": jnp.zeros(2, dtype)}
    updates, _ = lrajax.normalize_updates().update(updates, ())
    assert updates["w"].dtype == dtype
    np.testing.assert_allclose(updates["w"].astype(float), [0.6, -0.8], rtol=0.05)
    np.testing.assert_array_equal(updates["fixed"], [0, 0])


def test_what_is_added_to_the_norm_damps_what_is_well_below_it():
    updates, _ = lrajax.normalize_updates(eps=5e-3).update({"w": jnp.array([3e-3, 4e-3])}, ())
    np.testing.assert_allclose(updates["w"], [0.3, 0.4], rtol=1e-6)
