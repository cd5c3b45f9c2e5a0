"""What rules share: parameters, the forward pass, the output's error, updates, mirrors, states.

`thetas` are the forward parameters, one entry a layer: `params.forward`.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from lrajax import layers
from lrajax.base import (
    Batch,
    Calculations,
    IndexedBatch,
    Initializer,
    Layer,
    Loss,
    Network,
    Params,
    PyTree,
    Values,
)
from lrajax.checks import one_of


def init_forward(network: Network, key: PRNGKeyArray, initializer: Initializer) -> tuple:
    """Forward parameters of every layer."""
    keys = jax.random.split(key, len(network.layers))
    return drawn([layer.init for layer in network.layers], keys, initializer)


def init_feedback(layers_: Sequence[Layer], key: PRNGKeyArray, initializer: Initializer) -> tuple:
    """Feedback weights of every layer but the first, which has nothing below to teach: `()`."""
    keys = jax.random.split(key, len(layers_) - 1)
    return ((), *drawn([layer.init_feedback for layer in layers_[1:]], keys, initializer))


def drawn(
    makers: Sequence[Callable[[PRNGKeyArray, Initializer], PyTree]],
    keys: Iterable[PRNGKeyArray],
    initializer: Initializer,
) -> tuple[PyTree, ...]:
    """What each maker draws from its key.

    A maker that is there several times draws in a loop: of a hundred equal layers one is compiled.
    """
    keys, found = list(keys), dict[int, PyTree]()
    for maker in {id(maker): maker for maker in makers}.values():
        places = [i for i, other in enumerate(makers) if other is maker]
        if len(places) == 1:
            found[places[0]] = maker(keys[places[0]], initializer)
            continue
        own = jnp.stack([keys[i] for i in places])
        several = jax.lax.map(lambda key, maker=maker: maker(key, initializer), own)
        for i, place in enumerate(places):
            found[place] = jax.tree.map(operator.itemgetter(i), several)
    return tuple(found[i] for i in range(len(makers)))


def no_feedback(network: Network) -> tuple:
    """The feedback entries of a rule that needs none."""
    return ((),) * len(network.layers)


def forward(
    network: Network, thetas: tuple, x: Shaped[Values, " B *in"]
) -> tuple[tuple[Float[Array, "B ..."], ...], tuple[Float[Array, "B ..."], ...]]:
    """Pre- and post-activities of every layer (equation 1).

    Raises:
      ValueError: x is not a batch of what the first layer takes, a layer does not take what the
        one below gives, or its h and z are not of its out_shape.
    """
    check_shapes(network, x)
    hs, zs = [], []
    z = x
    for l, (layer, theta) in enumerate(zip(network.layers, thetas, strict=True)):
        h = layers.pre(layer, theta, z)
        z = layers.post(layer, h)
        _check_activities(l, layer, h, z)
        hs.append(h)
        zs.append(z)
    return tuple(hs), tuple(zs)


def flat(array: Shaped[Array, "B ..."]) -> Shaped[Array, " B n"]:
    """What a mini-batch of any shape holds, a row an example, [B, n]; B may be 0."""
    return array.reshape(len(array), layers.size(array.shape[1:]))


def predict(
    network: Network, thetas: tuple, x: Shaped[Values, " B *in"]
) -> Float[Array, " B *out"]:
    """The output layer's post-activity, [B, *out_shape]."""
    return forward(network, thetas, x)[1][-1]


def output_error(
    network: Network,
    batch: Batch | IndexedBatch,
    h_out: Float[Array, " B *out"],
    z_out: Float[Array, " B *out"],
) -> Float[Array, " B *out"]:
    """dL/dh of the output layer, [B, *out_shape]: the loss's error unit through the activation.

    With the canonical link of the loss that is z - y.

    Raises:
      ValueError: the labels do not have the output's shape, or the loss does not fit the output.
    """
    layer, loss = network.layers[-1], network.output_loss
    y = labels(batch, z_out)
    _check_output(layer, loss)
    if layer.post is loss.link:
        return z_out - y
    return layers.vjp_post(layer, h_out, loss.error(y, z_out))


def labels(batch: Batch | IndexedBatch, z_out: Float[Array, " B *out"]) -> Float[Array, " B *out"]:
    """The labels in the dtype of the output, the last target of most rules.

    Raises:
      ValueError: they do not have the output's shape.
    """
    check_labels(batch.y, z_out)
    return jnp.asarray(batch.y, z_out.dtype)


@functools.lru_cache
def _check_output(layer: Layer, loss: Loss) -> None:
    """Raises ValueError unless the loss is defined for what the output's activation gives."""
    h = np.random.default_rng(0).normal(scale=3, size=(4, *layer.out_shape)).astype(np.float32)
    # Numbers even while a step is traced.
    with jax.ensure_compile_time_eval():
        z = jax.device_get(layers.post(layer, jax.device_put(h)))
    if not loss.fits(z):
        link = f", {loss.link.__name__}," if loss.link else ""
        raise ValueError(
            "network: its output_loss is not defined for what the last layer's activation gives, "
            f"such as {z.ravel()[:3]}: use the loss's link{link} or another loss"
        )
    for name, function, shape in (("value", loss.value, (4,)), ("error", loss.error, z.shape)):
        found = jax.eval_shape(function, z, z).shape
        if found != shape:
            raise ValueError(f"network: its output_loss.{name} gives {found}: make it {shape}")


def check_shapes(network: Network, x: Values) -> None:
    """Raises ValueError unless every layer takes what comes from below, the first one x."""
    in_shape = network.layers[0].in_shape
    if x.shape[1:] != in_shape:
        raise ValueError(f"x has shape {x.shape}; the network takes batches of {in_shape}")
    for l, (below, layer) in enumerate(itertools.pairwise(network.layers), 1):
        if layer.in_shape != below.out_shape:
            raise ValueError(
                f"layer {l} takes {layer.in_shape}, the layer below gives {below.out_shape}: make "
                "it take that, or wrap it in layers.reshaped"
            )


def _check_activities(l: int, layer: Layer, h: Array, z: Array) -> None:
    """Raises ValueError unless h and z are of the layer's shape; broadcast, they would mislead."""
    if not h.shape[1:] == z.shape[1:] == layer.out_shape:
        raise ValueError(
            f"layer {l}: h is {h.shape[1:]}, z {z.shape[1:]} and out_shape {layer.out_shape}: make "
            "them one; what pools or reshapes goes into the layer above, layers.pooled or reshaped"
        )


def check_labels(y: Values, z_out: Values) -> None:
    """Raises ValueError unless y has the output's shape; broadcast, it would teach nonsense."""
    if y.shape != z_out.shape:
        raise ValueError(f"y has shape {y.shape}; the network's output has {z_out.shape}")


def from_errors(
    batch: Batch | IndexedBatch, h: tuple, z: tuple, errors: Sequence[Array]
) -> Calculations:
    """Λ of a rule that computes errors and no targets: each error stands for the target z - e."""
    hidden = map(jnp.subtract, z[:-1], errors[:-1])
    return Calculations(batch.x, h, z, (*hidden, labels(batch, z[-1])), tuple(errors))


def local_deltas(network: Network, lambda_: Calculations) -> tuple[Array, ...]:
    """dL/dh of every layer: e ⊗ φ′(h) for hidden layers; the output's error is one already."""
    hidden = map(layers.vjp_post, network.layers[:-1], lambda_.h[:-1], lambda_.errors[:-1])
    return (*hidden, lambda_.errors[-1])


def local_updates(
    network: Network, thetas: tuple, lambda_: Calculations, deltas: Sequence[Array], reduction: str
) -> tuple[PyTree, ...]:
    """Update of every layer's forward parameters, ΔW = δ zᵀ with the activity below (equation 7).

    Args:
      network: the network.
      thetas: forward parameters.
      lambda_: what `compute_targets` found.
      deltas: dL/dh of every layer, [B, *out_shape] each.
      reduction: "sum" over the mini-batch, or "mean".
    """
    below = (lambda_.x, *lambda_.z[:-1])
    deltas = [
        reduce_batch(delta, reduction, theta) for delta, theta in zip(deltas, thetas, strict=True)
    ]
    return tuple(map(layers.vjp_theta, network.layers, thetas, below, deltas))


def fixed_feedback_updates(
    network: Network, params: Params, lambda_: Calculations, reduction: str
) -> Params:
    """Updates of a rule whose errors follow the derivatives and whose feedback stays as it is."""
    deltas = local_deltas(network, lambda_)
    return Params(
        forward=local_updates(network, params.forward, lambda_, deltas, reduction),
        feedback=jax.tree.map(jnp.zeros_like, params.feedback),
    )


def mirrored(feedback: tuple, entries: tuple) -> tuple:
    """What E mirrors, by name, of forward parameters or their updates; `()` where there is no E."""
    return tuple(map(_mirrored, feedback, entries))


def _mirrored(e: PyTree, entry: PyTree) -> PyTree:
    if not isinstance(e, dict):
        return entry if jax.tree.leaves(e) else ()
    return {name: _mirrored(part, entry[name]) for name, part in e.items()}


def once_known(array: Float[Array, " B *n"], values: PyTree) -> PyTree:
    """The values, to be had once an array of the mini-batch is there, on CPUs.

    XLA's CPU runs what depends on nothing that is missing side by side, and where a matrix is read
    after its update may run, copies it: every E in every step of a `jax.lax.scan`, unless updates
    wait for the lowest layer's error, which comes last (docs/evidence/speed.md). If the array's
    first number is NaN, so are the values. On other devices nothing waits, nor where several have
    a part of the mini-batch each, of which one would speak for all.
    """
    split = layers.batch_axes(array, values) or any(jax.typeof(array).sharding.spec)
    if split or jax.default_backend() != "cpu":
        return values
    bad = jnp.isnan(array.ravel()[:1]).any()  # of an empty mini-batch: False
    return jax.tree.map(lambda a: jnp.where(bad, jnp.nan, a), values)


def init_layer_states(network: Network, thetas: tuple) -> tuple:
    """The state of every layer before the first step; `()` where no layer keeps one."""
    states = tuple(
        layer.init_state(theta) for layer, theta in zip(network.layers, thetas, strict=True)
    )
    return states if jax.tree.leaves(states) else ()


def remember(network: Network, thetas: tuple, states: tuple, lambda_: Calculations) -> tuple:
    """The states of the layers after a mini-batch, from the activities that it gave."""
    if not states:
        return ()
    below = (lambda_.x, *lambda_.z[:-1])
    return tuple(map(layers.remember, network.layers, thetas, states, below))


def recall(params: Params, states: tuple) -> Params:
    """The parameters with the layers' states among them, for `predict`."""
    if not states:
        return params
    return params._replace(forward=tuple(map(layers.recall, params.forward, states)))


def reduce_batch(
    delta: Float[Array, " B *n"], reduction: str, theta: PyTree = ()
) -> Float[Array, " B *n"]:
    """Scales per-example deltas so that their sum over the batch is the reduction asked for.

    Args:
      delta: [B, ...].
      reduction: "sum" or "mean".
      theta: the parameters whose update it is. Inside `jax.shard_map`, where each device has a part
        of the mini-batch, that update is summed over all of them, and the mean is over all too.
    """
    return delta / batch_size(delta, theta) if reduction == "mean" else delta


def batch_size(array: Array, theta: PyTree) -> int:
    """Examples in a mini-batch [B, ...]; inside `jax.shard_map` those on all devices."""
    return len(array) * math.prod(map(jax.lax.axis_size, layers.batch_axes(array, theta)))


def batch_mean(values: Float[Array, " B"], theta: PyTree) -> Float[Array, ""]:
    """Mean over the mini-batch of [B], []; inside `jax.shard_map` over all devices."""
    mean, axes = values.mean(), layers.batch_axes(values, theta)
    return jax.lax.pmean(mean, axes) if axes else mean


def scaled(factor: float | Array, array: Array) -> Array:
    """A hyperparameter times an array, in the array's dtype: a traced one is float32, say."""
    return jnp.asarray(factor, array.dtype) * array


def check_reduction(reduction: str) -> None:
    """Raises ValueError unless `reduction` is "mean" or "sum"."""
    one_of("reduction", reduction, ("mean", "sum"))
