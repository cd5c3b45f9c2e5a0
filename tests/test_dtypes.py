"""Numbers in other dtypes: the caller's x and y, and parameters in half precision."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from commands import run

import lrajax
from lrajax import layers, losses, training

NETWORK = lrajax.mlp((5, 4, 6, 3, 2))
KEY = jax.random.key(3)
every_rule = pytest.mark.parametrize("name", lrajax.ALGORITHMS)


def computed(name, params, batch, **hyperparameters):
    return reference.compute(
        lrajax.ALGORITHMS[name](NETWORK, **hyperparameters), params, batch, KEY
    )


def black_and_white(x=np.float32, y=np.float32):
    """Pixels of 0 and 1, which any dtype holds."""
    pixels = np.random.default_rng(0).integers(2, size=(7, 5)).astype(x)
    return lrajax.Batch(pixels, np.eye(2)[np.arange(7) % 2].astype(y))


@every_rule
def test_inputs_and_labels_of_any_dtype_are_as_float32(name):
    rule = lrajax.ALGORITHMS[name](NETWORK)
    params = reference.make_params(rule)
    compute = functools.partial(reference.compute_named, name, rule, key=KEY)
    lambda_, updates = compute(params, black_and_white())
    pairs = [(np.uint8, np.uint8), (bool, bool), (np.float64, np.float64), (np.int8, np.float16)]
    for batch in (black_and_white(*pair) for pair in pairs):
        found, changes = compute(params, batch)
        chex.assert_trees_all_equal_dtypes(found._replace(x=()), lambda_._replace(x=()))
        close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
        close((found._replace(x=()), changes), (lambda_._replace(x=()), updates))
        shape = jax.eval_shape(rule.predict, params, batch.x)
        assert shape.dtype == jnp.float32


@pytest.mark.parametrize("loss", ["categorical", "bernoulli", "gaussian", "cauchy", "half_squared"])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int8, np.float16, np.float64])
def test_losses_compute_in_the_dtype_of_the_activity(loss, dtype):
    loss, y = getattr(losses, loss), np.eye(3, dtype=np.float32)
    z = jnp.array(np.random.default_rng(0).dirichlet(np.ones(3), size=3), jnp.float32)
    for function in (loss.value, loss.error):
        found = function(y.astype(dtype), z)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, function(y, z))


@functools.cache
def in_float32(name):
    """A function of parameters, parameters and values of float32, and what it makes of them."""
    params = reference.make_params(lrajax.ALGORITHMS[name](NETWORK))
    batch = reference.make_batch(NETWORK, 7)
    rule = lrajax.RULES[name]
    defaults = {key: rule.hyperparameters[key].default for key in rule.traced}
    values = {key: jnp.float32(value) for key, value in defaults.items()}
    compute = jax.jit(lambda params, values: computed(name, params, batch, **values))
    return compute, params, values, compute(params, values)[1]


@every_rule
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_all_is_computed_in_half_precision(name, dtype):
    """With nothing promoted, under hyperparameters and labels of float32."""
    compute, wide, values, expected = in_float32(name)
    params = jax.tree.map(lambda a: np.asarray(a).astype(dtype), wide)
    with jax.numpy_dtype_promotion("strict"):
        lambda_, updates = compute(params, values)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    for leaf in jax.tree.leaves(lambda_._replace(x=())):
        assert leaf.dtype in (dtype, jnp.int32)
    if not name.startswith("dtp"):  # whose noise is the same, but rounded
        flat, right = (
            np.concatenate([np.ravel(leaf).astype(np.float32) for leaf in jax.tree.leaves(tree)])
            for tree in (updates, expected)
        )
        assert np.linalg.norm(flat - right) < 0.05 * np.linalg.norm(right)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.rmsprop(1e-3),
        optax.adamw(optax.cosine_decay_schedule(1e-3, 9)),
    ],
    ids=["momentum", "rmsprop", "adamw"],
)
def test_a_run_in_bfloat16_keeps_it(optimizer):
    algo = lrajax.in_dtype(lrajax.lra_e(NETWORK), jnp.bfloat16)
    state = jax.eval_shape(lambda: training.init_state(algo, optimizer, KEY))
    after, metrics = jax.eval_shape(
        training.make_train_step(algo, optimizer), state, reference.make_batch(NETWORK, 7)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    floats = [a.dtype for a in jax.tree.leaves((after.params, after.opt_state))]
    assert {d for d in floats if d != jnp.int32} == {jnp.dtype(jnp.bfloat16)}
    assert metrics.loss.dtype == jnp.float32  # or a mean of thousands would be worth little


def test_a_run_asked_for_in_bfloat16_is_kept_and_goes_on_in_it(tmp_path):
    def train(folder, epochs):
        flags = ("--dtype=bfloat16", "--hidden_layers=1", "--width=8", "--opt=adam", "--lr=0.01")
        done = run("train.py", *flags, f"--epochs={epochs}", f"--out_dir={tmp_path / folder}")
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / folder / "best_params.npz") as file:
            dtypes = json.loads(file["dtypes.json"])
            return {name: file[name] for name in file.files if name != "dtypes.json"}, dtypes

    at_once, dtypes = train("at_once", 2)
    train("in_turn", 1)
    in_turn, _ = train("in_turn", 2)
    chex.assert_trees_all_equal(in_turn, at_once)
    assert dtypes == dict.fromkeys(at_once, "bfloat16")


def test_a_layer_without_parameters_keeps_its_inputs_dtype():
    layer = NETWORK.layers[0]._replace(pre=lambda theta, z: z)
    assert layers.pre(layer, {}, np.ones((2, 5), bool)).dtype == jnp.float32
    assert layers.pre(layer, {}, np.ones((2, 5), jnp.bfloat16)).dtype == jnp.bfloat16
