"""Settings and fixtures of the whole suite: broadcasting between ranks is an error."""

import gc
import os

# Before what reads them is imported. On busy cores threads that wait for each other spin: a search
# with orthogonal initialisers took four times the work, t-SNE three times.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import jax
import pytest
from jaxtyping import install_import_hook

# Before they are imported: what rules are made of checks the shapes of its annotations.
with install_import_hook(["lrajax.steps", "lrajax.layers.products"], "beartype.beartype"):
    import lrajax
import reference

jax.config.update("jax_numpy_rank_promotion", "raise")
# Networks are tiny here: the tests' time is XLA's compilation, which these cut to a third.
jax.config.update("jax_disable_most_optimizations", True)
if jax.__version_info__ < (0, 11):  # a flag that newer ones lack would end the process
    os.environ["XLA_FLAGS"] = " ".join(
        (
            os.environ.get("XLA_FLAGS", ""),
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
            "--xla_cpu_multi_thread_eigen=false",
        )
    )


# The longest modules, a worker each. They come first, so that none waits for another at the end.
LONG = (
    *("docs", "reproduce", "faults", "benchmarks", "wider_layers", "contract", "train", "devices"),
    *("architectures", "properties", "cards", "training", "command", "dtypes", "report"),
    *("stochastic", "readme", "predictive_coding", "notebook", "leaderboard", "autoencode"),
)


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(LONG)))


def pytest_collection_finish():
    """Keeps the garbage collector from looking through what is imported, over and over."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Lets workers and the commands that they run share what they compile, quickly made."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers share it too
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
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
