"""Settings and fixtures of the whole suite: broadcasting between ranks is an error."""

import os

import jax
import pytest
import reference

import lrajax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Networks are tiny here: the tests' time is XLA's compilation, which this halves.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Lets the commands that tests run share what they compile, with as few optimisations."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers share it too
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def network():
    """Three hidden layers of different widths, so that a transposed or shifted index shows."""
    return lrajax.mlp((5, 4, 6, 3, 2))


@pytest.fixture(scope="session")
def batch(network):
    return reference.make_batch(network, 7)
