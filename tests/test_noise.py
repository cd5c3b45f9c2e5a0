"""lrajax/noise.py: known answers of the generator, the distribution, invariance under vmap."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lrajax import noise
from lrajax.noise import standard_normal, threefry2x32

ONES = 0xFFFFFFFF


# From the Random123 library's file of known answers (Salmon et al. 2011).
@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(key, counter, words):
    key, counter = (np.array(pair, np.uint32) for pair in (key, counter))
    np.testing.assert_array_equal(threefry2x32(key, counter[:, None])[:, 0], words)


def test_the_distribution_is_the_standard_normal():
    x = np.asarray(standard_normal(jax.random.key(0), (200_001,)))
    assert stats.kstest(x, "norm").pvalue > 0.01
    assert abs(stats.kurtosis(x)) < 0.05
    # Halves of a block, and neighbours, are independent.
    for lag in (1, 100_001):
        assert abs(np.corrcoef(x[lag:], x[:-lag])[0, 1]) < 0.01


def test_keys_give_numbers_of_their_own_and_the_same_under_vmap():
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(lambda key: standard_normal(key, (5, 7))))(keys)
    assert together.dtype == jnp.float32
    for key, drawn in zip(keys, together, strict=True):
        np.testing.assert_array_equal(drawn, standard_normal(key, (5, 7)))
    assert len(np.unique(together)) == together.size


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0)])
def test_small_shapes(shape):
    assert standard_normal(jax.random.key(0), shape).shape == shape


def test_the_numbers_do_not_depend_on_64_bit_types():
    expected = standard_normal(jax.random.key(0), (9,))
    with jax.enable_x64(True):
        drawn = standard_normal(jax.random.key(0), (9,))
    assert drawn.dtype == jnp.float32
    np.testing.assert_array_equal(drawn, expected)


def test_importing_the_library_starts_no_backend():
    """Several processes have to find each other before the first use of JAX."""
    code = "import jax, lrajax; assert not jax._src.xla_bridge.backends_are_initialized()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_words_of_a_key_are_those_that_jax_draws():
    keys = jax.random.split(jax.random.key(2), 4)
    drawn = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys)
    np.testing.assert_array_equal(jax.vmap(noise._two_words)(keys), drawn)


def test_any_generator_of_jax_serves_as_the_key():
    x = standard_normal(jax.random.key(0, impl="rbg"), (20_001,))
    assert stats.kstest(np.asarray(x), "norm").pvalue > 0.01
