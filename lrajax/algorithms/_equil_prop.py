"""Equilibrium propagation (Scellier and Bengio 2017), on the hard-sigmoid energy model.

    E(s)  = Σ_l ½ ‖s^l‖² - s^l · pre^l(s^{l-1}),   s^0 = x,   s^l in [0, 1]       energy
    C(s)  = ½ ‖y - s^L‖²                                                          cost
    ds/dt = -dE/ds - β dC/ds                                                      relaxation
    ΔW^l  = (1/β) (dE/dW^l(s^β) - dE/dW^l(s^0)),   dE/dW^l = -s^l (s^{l-1})ᵀ      update

s^0 ("free") and s^β ("nudged") are the fixed points at β = 0 and at β. The states are clipped to
[0, 1], where ρ(s) = s, so neither ρ nor ρ′ appears. The feedback path is the transpose of the
forward one: EP has no feedback weights. The layers' own activations are not used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers
from lrajax.algorithms._settle import ORDERS, Settled, settle
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, between, one_of, positive
from lrajax.losses import half_squared
from lrajax.steps import (
    check_labels,
    check_reduction,
    check_shapes,
    init_forward,
    no_feedback,
    reduce_batch,
)


class Phases(NamedTuple):
    """The phases of a mini-batch, which the update compares.

    Attributes:
      free: states at β = 0, and the sweeps it took to reach them.
      first, second: the phases compared: the free and the nudged one, or the two nudged ones.
      distance: from the nudge of the first to that of the second, [].
    """

    free: Settled
    first: Settled
    second: Settled
    distance: Array


NUDGES = ("random", "centred", "positive")


def equil_prop(
    network: Network,
    *,
    beta: float = 1.0,
    nudge: str = "random",
    free_steps: int = 20,
    nudged_steps: int = 4,
    step_size: float = 0.5,
    order: str = "synchronous",
    low: float = 0.0,
    feedback: float = 1.0,
    tolerance: float | None = None,
    rates: Sequence[float] | None = None,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes equilibrium propagation for a network.

    Args:
      network: the network to train.
      beta: strength of the nudge, > 0. (Code with the cost ‖y - s‖² writes half of it.)
      nudge: sign of the nudge: "random" for each mini-batch, "positive", or "centred" (the
        difference of a positive and a negative one; Laborieux et al. 2021).
      free_steps: steps of relaxation in the free phase, >= 1.
      nudged_steps: steps of relaxation in a nudged phase, >= 1.
      step_size: Euler step ε of the relaxation, in (0, 1].
      tolerance: stops a phase once no state moves by more than this in a step; None never does.
      rates: factor on each layer's update, first layer first; None for ones.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the weights.

    Returns:
      The rule. `predict` gives the output units' free states, in [0, 1] but not summing to 1. In
      Λ, `z` holds the free states, `targets` the nudged ones (of the positive nudge if centred),
      and `errors` their difference over the nudge, an estimate of dC/ds. `compute_targets` needs a
      key if the nudge is random.

    Raises:
      ValueError: a hyperparameter out of range, or rates that are not one per layer.
    """
    positive("beta", beta)
    one_of("nudge", nudge, NUDGES)
    at_least("free_steps", free_steps, 1)
    at_least("nudged_steps", nudged_steps, 1)
    positive("step_size", step_size)
    one_of("order", order, ORDERS)
    if tolerance is not None:
        at_least("tolerance", tolerance, 0)
    check_reduction(reduction)
    rates = (1.0,) * len(network.layers) if rates is None else tuple(rates)
    if len(rates) != len(network.layers):
        raise ValueError(
            f"rates={rates} must have one entry for each of {len(network.layers)} layers"
        )
    at_least("rates", rates, 0)

    top = len(network.layers) - 1
    rates = tuple(r * feedback ** (l - top) for l, r in enumerate(rates))

    def init(key):
        return Params(init_forward(network, key, w_init), no_feedback(network))

    def relax(params, x, states, steps, y=None, beta=0.0):
        """Settles the states, at β = 0 without a label."""
        # The input is clamped, so its drive is computed once.
        h_first = layers.pre(network.layers[0], params.forward[0], x)

        def move(s, l):
            below, above = network.layers[l], l + 1
            # -dE/ds + s: what the layers below and above ask of the state
            drive = layers.pre(below, params.forward[l], s[l - 1]) if l else h_first
            if l < top:
                down = layers.vjp_below(
                    network.layers[above], params.forward[above], s[l], s[above]
                )
                drive += down if feedback == 1.0 else feedback * down
            force = drive - s[l]
            if l == top and y is not None:
                force += beta * (y - s[l])
            return jnp.clip(s[l] + step_size * force, low if l < top else 0, 1)

        return settle(move, states, steps, order=order, tolerance=tolerance, downward=y is not None)

    def free_phase(params, x):
        check_shapes(network, x)
        start = tuple(
            jnp.zeros((x.shape[0], *layer.out_shape), x.dtype) for layer in network.layers
        )
        return relax(params, x, start, free_steps)

    def compute_targets(params, batch, *, key=None):
        x, y = batch
        free = free_phase(params, x)
        check_labels(y, free.states[-1])

        def nudged(beta):
            return relax(params, x, free.states, nudged_steps, y, beta)

        if nudge == "random":
            if key is None:
                raise ValueError("key=None: the nudge's sign is drawn, so pass key= or set nudge=")
            sign = jax.random.rademacher(key, (), dtype=x.dtype)
            first, second, distance = free, nudged(sign * beta), sign * beta
        elif nudge == "centred":
            first, second, distance = nudged(-beta), nudged(beta), 2 * beta
        else:
            first, second, distance = free, nudged(beta), beta
        phases = Phases(free, first, second, distance)
        z = free.states
        errors = tuple((a - b) / distance for a, b in zip(first.states, second.states, strict=True))
        h = tuple(map(layers.pre, network.layers, params.forward, (x, *z[:-1])))
        return Calculations(x, h, z, second.states, errors, aux=phases)

    def energy_gradient(params, x, s):
        """dE/dθ of every layer, over the mini-batch."""
        negative = [-reduce_batch(s_l, reduction) for s_l in s]
        return tuple(map(layers.vjp_theta, network.layers, params.forward, (x, *s[:-1]), negative))

    def calc_updates(params, lambda_):
        _, first, second, distance = lambda_.aux
        at_first = energy_gradient(params, lambda_.x, first.states)
        at_second = energy_gradient(params, lambda_.x, second.states)
        updates = (
            jax.tree.map(lambda a, b, rate=rate: rate * (b - a) / distance, a, b)
            for rate, a, b in zip(rates, at_first, at_second, strict=True)
        )
        return Params(tuple(updates), no_feedback(network))

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=calc_updates,
        predict=lambda params, x: free_phase(params, x).states[-1],
        loss=half_squared.value,
        network=network,
    )
