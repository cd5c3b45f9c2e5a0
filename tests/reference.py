"""The paper's notation in NumPy, for references that share no code with lrajax.

Matrices stand as in the paper: h = W z, activities are columns, [n, B], and layers count from 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lrajax


def sigmoid(h):
    return 1 / (1 + np.exp(-h))


# phi and its derivative, both of the pre-activity
PHI = {
    "tanh": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
    "sigmoid": (sigmoid, lambda h: sigmoid(h) * (1 - sigmoid(h))),
    "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(h.dtype)),
    "softplus": (lambda h: np.log1p(np.exp(h)), sigmoid),
    "identity": (lambda h: h, np.ones_like),
}


def softmax(h):
    return np.exp(h) / np.exp(h).sum(axis=0)


def make_batch(network, size, seed=1):
    """Uniform inputs and labels that go through the classes in turn."""
    x = np.random.default_rng(seed).uniform(size=(size, *network.layers[0].in_shape))
    num_classes = network.layers[-1].out_shape[0]
    y = np.eye(num_classes)[np.arange(size) % num_classes]
    return lrajax.Batch(jnp.array(x, float), jnp.array(y, float))


def make_params(rule, seed=0):
    """Parameters of a rule, from NumPy, with biases that are not zero, so that one forgotten shows.

    `rule.init` is traced for the shapes alone: compiling its random draws takes seconds.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(rule.init, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.array(0.5 * rng.normal(size=a.shape), float), shapes)


def compute(rule, params, batch, key=None):
    """Λ and updates, operation by operation.

    Where tests share shapes each operation is compiled once for all of them: keep to the sizes of
    the fixtures in conftest.py.
    """
    lambda_ = rule.compute_targets(params, batch, key=key)
    return lambda_, rule.calc_updates(params, lambda_)


# The same as one program, quicker for a rule with a loop or sizes that few tests have.
compute_whole = jax.jit(compute, static_argnums=0)
RELAXING = ("equil_prop", "predictive_coding")  # those with a loop


def compute_named(name, rule, params, batch, key=None):
    """`compute`, or `compute_whole` where that is quicker, for sizes that many tests share."""
    return (compute_whole if name.startswith(RELAXING) else compute)(rule, params, batch, key)


def tie(params):
    """Params whose feedback is the forward weights: E = Wᵀ."""
    return params._replace(feedback=((), *({"w": theta["w"]} for theta in params.forward[1:])))


def paper(entries, name="w"):
    """{l: array} of one parameter in the paper's orientation: W, or b as a column."""
    arrays = {l: np.asarray(e[name], np.float64) for l, e in enumerate(entries, 1) if e}
    return {l: a.T if a.ndim == 2 else a[:, None] for l, a in arrays.items()}


def columns(batch):
    return np.asarray(batch.x, np.float64).T, np.asarray(batch.y, np.float64).T


def forward(w, b, x, activation):
    """{l: h^l} and {l: z^l}, with z^0 = x (equation 1)."""
    phi, _ = PHI[activation]
    h, z = {}, {0: x}
    for l in w:
        h[l] = w[l] @ z[l - 1] + b[l]
        z[l] = softmax(h[l]) if l == len(w) else phi(h[l])
    return h, z


def assert_columns(actual, expected):
    """A tuple of [B, n] against {l: [n, B]}, layers from 1 (a z^0 is passed over)."""
    assert len(actual) == max(expected)
    for l, array in enumerate(actual, 1):
        np.testing.assert_allclose(np.asarray(array).T, expected[l], rtol=1e-4, atol=2e-6)


def assert_updates(entries, w, b=None):
    """Per-layer updates against {l: ΔW^l} and {l: Δb^l}; a layer that is not in w has `()`."""
    for l, update in enumerate(entries, 1):
        if l not in w:
            assert update == ()
            continue
        np.testing.assert_allclose(np.asarray(update["w"]).T, w[l], rtol=1e-4, atol=1e-5)
        if b is not None:
            np.testing.assert_allclose(update["b"], b[l], rtol=1e-4, atol=1e-5)
        assert set(update) == ({"w"} if b is None else {"w", "b"})
