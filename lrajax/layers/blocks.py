"""Blocks: several layers as one unit of a network, and skip connections around them."""

import itertools

import jax

from lrajax.base import Layer


def chain(*parts: Layer) -> Layer:
    """Layers, first to last, as one: its h is the last one's, and it has one error and one target.

    Its parameters are those of its parts by number, {"0": ..., "1": ...}. E has an entry for each:
    what carries an error down is the derivative of the whole chain with E in the place of its
    weights, so below the last part E mirrors the biases too, on which slopes depend.

    Raises:
      ValueError: no parts, or one that does not take what the one below gives.
    """
    if not parts:
        raise ValueError("chain() has no parts: give it layers")
    for below, part in itertools.pairwise(parts):
        if part.in_shape != below.out_shape:
            raise ValueError(f"a part takes {part.in_shape}, the one below gives {below.out_shape}")
    *inner, last = parts
    names = [str(i) for i in range(len(parts))]

    def init(key, initializer):
        keys = jax.random.split(key, len(parts))
        return {n: p.init(k, initializer) for n, p, k in zip(names, parts, keys, strict=True)}

    def init_feedback(key, initializer):
        keys = jax.random.split(key, len(parts))
        makers = (*(part.init for part in inner), last.init_feedback)
        return {n: make(k, initializer) for n, make, k in zip(names, makers, keys, strict=True)}

    def inputs(theta, z):
        """The activity that each part is fed with."""
        fed = [z]
        for name, part in zip(names, inner, strict=False):
            fed.append(part.post(part.pre(theta[name], fed[-1])))
        return fed

    def init_state(theta):
        states = {n: part.init_state(theta[n]) for n, part in zip(names, parts, strict=True)}
        return states if jax.tree.leaves(states) else ()

    def remember(theta, state, z):
        if not state:
            return state
        return {
            n: part.remember(theta[n], state[n], below)
            for n, part, below in zip(names, parts, inputs(theta, z), strict=True)
        }

    return Layer(
        in_shape=parts[0].in_shape,
        out_shape=last.out_shape,
        init=init,
        init_feedback=init_feedback,
        pre=lambda theta, z: last.pre(theta[names[-1]], inputs(theta, z)[-1]),
        post=last.post,
        init_state=init_state,
        remember=remember,
    )


def residual(layer: Layer, projection: Layer | None = None) -> Layer:
    """The layer with a skip connection, h = pre(z) + z, and one for the error beside it.

    Args:
      layer: a layer or a `chain`.
      projection: what the skip goes through where the layer changes the shape of the activity: a
        layer of the same shapes whose `pre` is added in place of z. The parameters are then
        {"block": ..., "projection": ...}.

    Raises:
      ValueError: a skip without a projection that changes the shape, or a projection with other
        shapes than the layer's.
    """
    if projection is None:
        if layer.in_shape != layer.out_shape:
            raise ValueError(
                f"a skip connection needs one shape: {layer.in_shape} in, {layer.out_shape} out; "
                "give a projection"
            )
        return layer._replace(pre=lambda theta, z: layer.pre(theta, z) + z, feedback=None)
    shapes = [(part.in_shape, part.out_shape) for part in (layer, projection)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"projection goes from and to {shapes[1]}, the layer {shapes[0]}")
    parts = {"block": layer, "projection": projection}

    def init(key, initializer):
        keys = jax.random.split(key)
        return {n: p.init(k, initializer) for (n, p), k in zip(parts.items(), keys, strict=True)}

    def init_feedback(key, initializer):
        keys = jax.random.split(key)
        pairs = zip(parts.items(), keys, strict=True)
        return {n: p.init_feedback(k, initializer) for (n, p), k in pairs}

    def init_state(theta):
        states = {n: p.init_state(theta[n]) for n, p in parts.items()}
        return states if jax.tree.leaves(states) else ()

    def remember(theta, state, z):
        if not state:
            return state
        return {n: p.remember(theta[n], state[n], z) for n, p in parts.items()}

    return Layer(
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        init=init,
        init_feedback=init_feedback,
        pre=lambda theta, z: layer.pre(theta["block"], z) + projection.pre(theta["projection"], z),
        post=layer.post,
        init_state=init_state,
        remember=remember,
    )
