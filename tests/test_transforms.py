import jax
import jax.numpy as jnp
import numpy as np
import optax

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
