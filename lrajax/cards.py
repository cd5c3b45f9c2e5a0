"""A card for a rule: what it needs and what it costs, measured on a network and not claimed.

`audit` answers "is it backprop after all?": whether errors go through the transposes of W, whether
derivatives are needed, what an update reads, and how many products a step takes, one after another
and in all. Everything is found by running the rule, or from the program that JAX traces of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.flatten_util import ravel_pytree
from jax.interpreters import partial_eval
from jaxtyping import Array, PRNGKeyArray

from lrajax import layers
from lrajax.algorithms import backprop
from lrajax.base import Algorithm, Batch, Layer, Network, Params, PyTree
from lrajax.diagnostics import feedback_angles, update_angles_to_backprop
from lrajax.steps import forward

EXAMPLES = 2  # in the batch whose errors are watched: few, so that W has room to change unseen
# "convolution_in_turn" is that of lrajax.layers.convolution.
PRODUCTS = ("dot_general", "conv_general_dilated", "convolution_in_turn")


class Card(NamedTuple):
    """What a rule needs and costs on a network; layers count from 0, the first hidden one.

    Attributes:
      transposes: layers whose W, changed so that no activity moves, moves the error of a layer
        below: their weights are used on the way down.
      signs_alone: whether such a change moves errors only if it turns signs of W.
      derivatives: whether the update of a hidden layer needs φ′ of hidden units.
      reads: of each layer's update, what it reads of Λ and of the parameters, "errors/0" or
        "feedback/1" say.
      products: multiplications and additions of matrix products in a step, in units of 10⁶.
      products_over_backprop: the same over those of backprop's step.
      depth: matrix products one after another until the update of the first layer.
      memory_over_backprop: bytes that the compiled step holds besides arguments and results, over
        backprop's.
      angles: degrees to backprop's update on the same parameters, for each layer.
      feedback_angles: degrees between E and Wᵀ, for each layer whose E mirrors W.
    """

    transposes: tuple[int, ...]
    signs_alone: bool
    derivatives: bool
    reads: tuple[tuple[str, ...], ...]
    products: float
    products_over_backprop: float
    depth: int
    memory_over_backprop: float
    angles: tuple[float, ...]
    feedback_angles: tuple[float, ...]


def audit(
    factory: Callable[..., Algorithm],
    network: Network,
    *,
    params: Params | None = None,
    batch: Batch | None = None,
    key: PRNGKeyArray | None = None,
    **hyperparameters: Any,
) -> Card:
    """Measures a rule on a network.

    Args:
      factory: makes the rule, `lrajax.lra_e` say.
      network: whose layers it should train.
      params: the rule's; None for its initial ones. Angles are those of these parameters.
      batch: what costs and angles are measured on; None for 50 random examples.
      key: of parameters, noise and examples; None for `jax.random.key(0)`.
      **hyperparameters: of the factory.

    Returns:
      The card. A rule whose number of steps depends on the data (a tolerance) counts one.
    """
    key = jax.random.key(0) if key is None else key
    rule, reference = factory(network, **hyperparameters), backprop(network)
    params = jax.jit(rule.init)(key) if params is None else params
    batch = _random_batch(network, key, 50) if batch is None else batch
    few = jax.tree.map(lambda a: a[:EXAMPLES], batch)
    step, standard = (_step(algo, key) for algo in (rule, reference))
    bare = Params(params.forward, reference.init(key).feedback)
    flops, usual = (_products(step, params, batch), _products(standard, bare, batch))
    held, little = (_memory(step, params, batch), _memory(standard, bare, batch))
    with jax.enable_x64(True):  # or rounding alone may move the small errors of wide networks
        turning, gentle = _transposes(rule, network, _doubled(params), _doubled(few), key)
    angles, mirrored = _angles(reference, rule, params, batch, key)
    return Card(
        transposes=turning,
        signs_alone=bool(turning) and set(gentle) < set(turning),
        derivatives=_needs_derivatives(factory, network, hyperparameters, params, few, key),
        reads=_reads(rule, params, few, key),
        products=flops / 1e6,
        products_over_backprop=flops / usual,
        depth=_depth(rule, params, few, key),
        memory_over_backprop=held / max(little, 1),
        angles=tuple(np.round(angles, 2).tolist()),
        feedback_angles=tuple(np.round(mirrored, 2).tolist()),
    )


def _random_batch(network: Network, key: PRNGKeyArray, size: int) -> Batch:
    """Uniform inputs with labels of random classes."""
    x_key, y_key = jax.random.split(jax.random.fold_in(key, 1))
    out = network.layers[-1].out_shape
    y = jax.random.randint(y_key, (size,), 0, layers.size(out))
    x = jax.random.uniform(x_key, (size, *network.layers[0].in_shape))
    return Batch(x, jax.nn.one_hot(y, layers.size(out)).reshape(size, *out))


def _step(rule: Algorithm, key: PRNGKeyArray) -> Callable[[Params, Batch], Params]:
    def step(params, batch):
        return rule.calc_updates(params, rule.compute_targets(params, batch, key=key))

    return step


def _doubled(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )


# --- What goes down ------------------------------------------------------------------------------


def _transposes(rule, network, params, batch, key) -> list[tuple[int, ...]]:
    """Layers whose W moves the hidden errors though no activity of the forward pass moves.

    Returns:
      Those under a change of W that turns signs, and those under one that turns none.
    """
    above = range(1, len(network.layers))

    def hidden_errors(forward_params):
        changed = params._replace(forward=forward_params)
        return rule.compute_targets(changed, batch, key=key).errors[:-1]

    @jax.jit  # or each of some hundred operations is compiled alone
    def moved():
        below = (batch.x, *forward(network, params.forward, batch.x)[1][:-1])
        trees = [params.forward]
        for l in above:
            for theta in _unseen(network.layers[l], params.forward[l], below[l], key):
                trees.append((*params.forward[:l], theta, *params.forward[l + 1 :]))
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        far = list(map(_moved, jax.lax.map(hidden_errors, stacked)))
        return jnp.stack(far).any(axis=0).reshape(len(above), 2).T

    return [tuple(l for l, found in zip(above, row, strict=True) if found) for row in moved()]


def _moved(errors: Array) -> Array:
    """Which of some errors, [1 + n, ...], differ from the first of them, [n]."""
    before, after = errors[:1], errors[1:]
    axes = tuple(range(1, errors.ndim))
    # What rounding moves is far less than what a change of W itself would.
    return jnp.abs(after - before).max(axes) > 1e-3 * jnp.abs(before).max()


def _unseen(layer: Layer, theta: PyTree, z_below: Array, key) -> tuple[PyTree, PyTree]:
    """Two sets of forward parameters that give the same pre-activity at `z_below`.

    Args:
      layer: the layer.
      theta: its parameters.
      z_below: the activity below, [B, *in_shape].
      key: of the direction in which they are changed.

    Returns:
      A change of 10 times the numbers' own sizes, and one of half of them, which turns no sign.
    """
    flat, unflatten = ravel_pytree(theta)
    matrix = jax.jacobian(lambda v: layers.pre(layer, unflatten(v), z_below).ravel())(flat)
    matrix = (
        matrix.reshape(-1, flat.size) * jnp.abs(flat)[None]
    )  # of changes relative to their sizes
    direction = jax.random.normal(key, flat.shape) * (flat != 0)
    # The part of it that no pre-activity sees: what is left beside the rows of the Jacobian. By the
    # rows' products, which are few; the second time takes away what rounding left.
    products = matrix @ matrix.T
    for _ in range(2):
        direction = direction - matrix.T @ jnp.linalg.lstsq(products, matrix @ direction)[0]
    change = jnp.abs(flat) * direction / jnp.abs(direction).max()
    return unflatten(flat + 10 * change), unflatten(flat + 0.5 * change)


# --- What it needs -------------------------------------------------------------------------------


def _without_derivative(layer: Layer) -> Layer:
    """The layer with the same activity, and NaN wherever its derivative is asked for."""
    post = jax.custom_vjp(layer.post)
    post.defvjp(lambda h: (layer.post(h), h), lambda h, _: (jnp.full_like(h, jnp.nan),))
    return layer._replace(post=post)


def _needs_derivatives(factory, network, hyperparameters, params, batch, key) -> bool:
    """Whether an update has a number that went through φ′ of a hidden unit."""
    *hidden, output = network.layers
    poisoned = network._replace(layers=(*map(_without_derivative, hidden), output))
    updates = jax.jit(_step(factory(poisoned, **hyperparameters), key))(params, batch)
    return any(np.isnan(leaf).any() for leaf in jax.tree.leaves(updates.forward))


def _reads(rule, params, batch, key) -> tuple[tuple[str, ...], ...]:
    """What the update of every layer reads of Λ and of the parameters."""
    lambda_ = jax.eval_shape(lambda p, b: rule.compute_targets(p, b, key=key), params, batch)
    closed = jax.make_jaxpr(lambda p, l: rule.calc_updates(p, l).forward)(params, lambda_)
    named = jax.tree_util.tree_leaves_with_path((params, lambda_))
    names = [_name(path) for path, _ in named]
    counts = [len(jax.tree.leaves(theta)) for theta in params.forward]
    found, start = [], 0
    for count in counts:
        wanted = [start <= i < start + count for i in range(sum(counts))]
        _, used = partial_eval.dce_jaxpr(closed.jaxpr, wanted)
        found.append(tuple(dict.fromkeys(n for n, u in zip(names, used, strict=True) if u)))
        start += count
    return tuple(found)


def _name(path: Sequence[Any]) -> str:
    """The field and the layer of an input: "z/0", "forward/2"."""
    return jax.tree_util.keystr(tuple(path[1:3]), simple=True, separator="/")


# --- What it costs -------------------------------------------------------------------------------


def _angles(reference, rule, params, batch, key) -> tuple[Array, Array]:
    """To backprop's update for each layer, and between E and Wᵀ for each that mirrors it."""

    def angles(params, batch):
        to_backprop, _ = update_angles_to_backprop(reference, rule, params, batch, key=key)
        return to_backprop, feedback_angles(params)

    return jax.jit(angles)(params, batch)


def _memory(step, params, batch) -> int:
    analysis = jax.jit(step).lower(params, batch).compile().memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0


def _products(step, params, batch) -> float:
    """Multiplications and additions of all matrix products that a step's results need."""
    return _flops(_needed(jax.make_jaxpr(step)(params, batch).jaxpr))


def _needed(jaxpr: core.Jaxpr) -> core.Jaxpr:
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def _inner(equation: Any) -> list[tuple[core.Jaxpr, int]]:
    """The programs inside an equation, and how often each runs."""
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    inner = [p for p in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)]
    return [(getattr(p, "jaxpr", p), times) for p in inner if _is_jaxpr(p)]


def _is_jaxpr(value) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _flops(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        total += _flops_of(equation)
        total += sum(times * _flops(program) for program, times in _inner(equation))
    return total


def _flops_of(equation: Any) -> float:
    """Those of a product, 0 of anything else."""
    name, how = equation.primitive.name, equation.params
    if name == "dot_general":
        left, out = (atom.aval.shape for atom in (equation.invars[0], equation.outvars[0]))
        (contracting, _), _ = how["dimension_numbers"]
        return 2 * math.prod(out) * math.prod(left[axis] for axis in contracting)
    if name == "convolution_in_turn":
        first, second, out = (a.aval.shape for a in (*equation.invars, *equation.outvars))
        cases = {"maps": (out, second), "images": (first, second), "kernels": (second, out)}
        h, (_, *window, _) = cases[how["gives"]]
        return 2 * math.prod(h) * math.prod(window)
    return 0.0


def _depth(rule, params, batch, key) -> int:
    """Matrix products on the longest path to the update of the first layer."""

    def first_update(params, batch):
        return _step(rule, key)(params, batch).forward[0]

    jaxpr = _needed(jax.make_jaxpr(first_update)(params, batch).jaxpr)
    return max(_depths(jaxpr, [0] * len(jaxpr.invars)))


def _depths(jaxpr: core.Jaxpr, at_inputs: Sequence[int]) -> list[int]:
    """Products on the longest path to every result, given those to every input."""
    known = dict(zip(jaxpr.invars, at_inputs, strict=True))

    def of(atom):
        return 0 if isinstance(atom, core.Literal) else known.get(atom, 0)

    for equation in jaxpr.eqns:
        here = max([of(atom) for atom in equation.invars], default=0)
        here += equation.primitive.name in PRODUCTS
        for program, times in _inner(equation):
            # A loop's state comes back to it, so its passes stand one after another.
            length = max(_depths(program, [0] * len(program.invars)), default=0)
            here += times * length
        known |= dict.fromkeys(equation.outvars, here)
    return [of(atom) for atom in jaxpr.outvars]
