"""Recursive LRA, rec-LRA (Ororbia, Mali, Kifer and Giles 2023).

    d^l   = E^{L→l} e^L              displacement, if l is a multiple of the stride m
    d^l   = E^{l+1→l} e^{l+1}        displacement of the other hidden layers
    y^l   = φ(h^l - β d^l)           target
    e^l   = -2 (y^l - z^l),   e^L = z^L - y
    ΔW^l  = (e^l ⊗ φ′(h^l)) (z^{l-1})ᵀ

    ΔE^{l+1→l} = γ (ΔW^{l+1})ᵀ,   ΔE^{L→l} = γ z^l (e^L)ᵀ

Error skip connections take the output's error straight to every m-th hidden layer, counted from the
lowest; the targets in between follow one from another as in LRA-E. No error crosses more than m
connections, however deep the network.

By default error units, updates and the learning of E^{l+1→l} are those of `lra_e`, so that with a
stride of all layers the two rules are one. A skip connection has no W to follow: it gets the
update, transposed, that a linear shortcut from z^l to the output would get.

Written from what others say of the publication, not from its text. Of it, by their account, are the
skip connections and the recursion of targets above, and these options:

    derivative=False          ΔW^l = e^l (z^{l-1})ᵀ
    doubled=False             e^l = z^l - y^l
    mix=(0.19, 0.24)          e <- α e + (1 - α) sign(e), α at the ends of skips and elsewhere
    e_update="displacement"   ΔE^{j→i} = γ d^i (e^j)ᵀ
    max_norm=c                every update rescaled to a norm of at most c
    beta=0.1205, gamma=0.1524, and W and E from N(0, 1), `initializers.gaussian(1.0)`

With the sign that they print, -γ d eᵀ, an E from which it is subtracted grows with every step, as
d = E e; it has the other sign here, under which E shrinks where it carries errors. Its residual
connections forward are the network's affair and not the rule's: `networks.resmlp`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lrajax import initializers, layers, losses
from lrajax.algorithms._lra_e import align, lra_e
from lrajax.algorithms._rule import factory
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, between, one_of, positive
from lrajax.steps import (
    flat,
    forward,
    init_feedback,
    init_forward,
    labels,
    output_error,
    reduce_batch,
    scaled,
)

E_UPDATES = ("mirror", "displacement")


@factory
def rec_lra(
    network: Network,
    *,
    stride: int = 2,
    beta: float = 0.1,
    gamma: float = 1.0,
    local_loss: str = "gaussian",
    derivative: bool = True,
    doubled: bool = True,
    mix: Sequence[float] | None = None,
    e_update: str = "mirror",
    max_norm: float | None = None,
    reduction: str = "sum",
    w_init: Initializer = initializers.LRA_W,
    e_init: Initializer = initializers.LRA_E,
) -> Algorithm:
    """Makes recursive local representation alignment, rec-LRA, for a network.

    Args:
      network: the network to train.
      stride: m, hidden layers from one error skip connection to the next, >= 1.
      beta: modulation of the displacement, > 0.
      gamma: rate of the error weights relative to the forward weights, >= 0.
      local_loss: "gaussian" (equation 3) or "cauchy" (equation 4) loss of the hidden layers.
      derivative: whether ΔW has the factor φ′(h^l): True is CalcUpdates-V1, False V2.
      doubled: whether hidden error units have the factor 2 of `lra_e`. It comes in once a hop.
      mix: shares α of hidden error units beside their sign, at skip ends and elsewhere. In [0, 1];
        None for 1.
      e_update: "mirror" or "displacement". E^{l+1→l} like W and skips like a shortcut, or γ d eᵀ.
      max_norm: c, the largest norm of an update, > 0. Of a weight matrix or bias; None for any.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.
      e_init: initialiser of the feedback weights.

    Returns:
      The rule; `params.feedback[l]` carries an error to the activity below layer `l`: from layer
      `l`, in the orientation of W, or, if `l` is a multiple of the stride, from the output,
      `{"w": [n_below, n_output]}`.

    Raises:
      ValueError: a hyperparameter out of range, an unknown local loss, e_update or reduction.
    """
    at_least("stride", stride, 1)
    one_of("e_update", e_update, E_UPDATES)
    if mix is not None and len(mix) != 2:
        raise ValueError(f"mix={mix} must be two shares: at the ends of skips, and elsewhere")
    for share in mix or ():
        between("mix", share, 0, 1)
    if max_norm is not None:
        positive("max_norm", max_norm)
    chain = lra_e(
        network,
        beta=beta,
        gamma=gamma,
        local_loss=local_loss,
        derivative=derivative,
        reduction=reduction,
    )
    top = len(network.layers) - 1
    n_output = layers.size(network.layers[top].out_shape)
    # The topmost hidden layer has the output as its neighbour: a skip would be the same connection.
    skips = range(stride, top, stride)
    # A skip is the feedback of a dense layer, which serves every kind, its activity flattened.
    carriers = [
        layers.dense(layers.size(layer.in_shape), n_output) if l in skips else layer
        for l, layer in enumerate(network.layers)
    ]

    def error_unit(l):
        """The error unit of hidden layer l, of target and activity."""
        half = 1.0 if doubled else 0.5

        def unit(target, z):
            error = half * losses.LOCAL_LOSSES[local_loss].error(target, z)
            if mix is None:
                return error
            share = mix[0] if l + 1 in skips else mix[1]
            return share * error + (1 - share) * jnp.sign(error)

        return unit

    def init(key):
        w_key, e_key = jax.random.split(key)
        return Params(
            forward=init_forward(network, w_key, w_init),
            feedback=init_feedback(carriers, e_key, e_init),
        )

    def displace(e, l, errors, z_below):
        """Displacement d of the activity below layer l, given the errors from layer l up."""
        if l not in skips:
            return layers.feedback(carriers[l], e, z_below, errors[0])
        row, error = flat(z_below), flat(errors[-1])
        return layers.feedback(carriers[l], e, row, error).reshape(z_below.shape)

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        errors = [output_error(network, batch, h[-1], z[-1])]
        targets = [labels(batch, z[-1])]
        for l in reversed(range(1, len(network.layers))):
            displacement = displace(params.feedback[l], l, errors, z[l - 1])
            displaced = scaled(beta, displacement)
            unit = error_unit(l - 1)
            target, error = align(network.layers[l - 1], h[l - 1], z[l - 1], displaced, unit)
            targets.insert(0, target)
            errors.insert(0, error)
        return Calculations(batch.x, h, z, tuple(targets), tuple(errors))

    def skip_update(e, l, lambda_):
        """γ z^l (e^L)ᵀ."""
        below, error = flat(lambda_.z[l - 1]), flat(lambda_.errors[-1])
        delta = scaled(gamma, reduce_batch(below, reduction, e))
        return layers.vjp_feedback(carriers[l], e, below, error, delta)

    def displaced_update(e, l, lambda_):
        """γ d^{l-1} (e^source)ᵀ."""
        z_below, errors = lambda_.z[l - 1], lambda_.errors[l:]
        displacement = reduce_batch(displace(e, l, errors, z_below), reduction, e)
        delta = scaled(gamma, displacement)
        if l not in skips:
            return layers.vjp_feedback(carriers[l], e, z_below, errors[0], delta)
        return layers.vjp_feedback(carriers[l], e, *map(flat, (z_below, errors[-1], delta)))

    def calc_updates(params, lambda_):
        updates = raw_updates(params, lambda_)
        if e_update == "displacement":
            above = range(1, len(network.layers))
            feedback = (displaced_update(params.feedback[l], l, lambda_) for l in above)
            updates = updates._replace(feedback=((), *feedback))
        if max_norm is None:
            return updates
        norms = jax.tree.map(lambda u: jnp.linalg.norm(u.ravel()), updates)
        return jax.tree.map(lambda u, n: u * max_norm / jnp.maximum(n, max_norm), updates, norms)

    def raw_updates(params, lambda_):
        mirrors = tuple(() if l in skips else e for l, e in enumerate(params.feedback))
        updates = chain.calc_updates(params._replace(feedback=mirrors), lambda_)
        feedback = [
            skip_update(params.feedback[l], l, lambda_) if l in skips else update
            for l, update in enumerate(updates.feedback)
        ]
        return updates._replace(feedback=tuple(feedback))

    return chain._replace(init=init, compute_targets=compute_targets, calc_updates=calc_updates)
