"""Equilibrium propagation (Scellier and Bengio 2017), on the hard-sigmoid energy model.

    E(s)  = Σ_l γ^{l-L} (½ ‖s^l‖² - s^l · pre^l(s^{l-1})),   s^0 = x              energy
    C(s)  = ½ ‖y - s^L‖²                                                          cost
    ds/dt = -dE/ds - β dC/ds                                                      relaxation
    ΔW^l  = (1/β) (dE/dW^l(s^β) - dE/dW^l(s^0)),   dE/dW^l = -γ^{l-L} s^l (s^{l-1})ᵀ

s^0 ("free") and s^β ("nudged") are the fixed points at β = 0 and at β. The states are clipped, the
output's to [0, 1], where ρ(s) = s, so neither ρ nor ρ′ appears. The feedback path is the transpose
of the forward one: EP has no feedback weights. The layers' own activations are not used.

The publication has γ = 1. There the couplings of deep networks either lose the signal on its way up
or have several fixed points, and hundreds of sweeps do not settle them. With a smaller γ the layer
above weighs γ times as much as the one below, so that states settle in a few sweeps, and the update
tends to backprop's as γ and β tend to 0 (Xie and Seung 2003, for contrastive Hebbian learning). The
relaxation divides each layer's force by its γ^{l-L}, which changes no fixed point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.algorithms._settle import ORDERS, Settled, in_turn, settle
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, below, between, one_of, positive
from lrajax.losses import half_squared
from lrajax.steps import (
    check_reduction,
    check_shapes,
    forward,
    init_forward,
    labels,
    no_feedback,
    reduce_batch,
    scaled,
)


class Phases(NamedTuple):
    """The phases of a mini-batch, which the update compares.

    Attributes:
      free: states at β = 0, and the sweeps it took to reach them.
      first: of the two phases compared the free one or, of a centred nudge, the negative.
      second: the nudged one or, of a centred nudge, the positive.
      distance: from the nudge of the first to that of the second, [].
    """

    free: Settled
    first: Settled
    second: Settled
    distance: Array


NUDGES = ("random", "centred", "positive")


@factory
def equil_prop(
    network: Network,
    *,
    beta: float = 1.0,
    nudge: str = "random",
    free_steps: int = 20,
    nudged_steps: int = 4,
    step_size: float = 0.5,
    tolerance: float | None = None,
    order: str = "synchronous",
    feedback: float = 1.0,
    low: float = 0.0,
    persistent: bool = False,
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
      free_steps: sweeps over the layers in the free phase, >= 1.
      nudged_steps: sweeps in a nudged phase, >= 1.
      step_size: Euler step ε of the relaxation, in (0, 1].
      tolerance: stops a phase once no state moves by more than this in a sweep; None never does.
      order: of the layers in a sweep: "synchronous", "asynchronous" or "sequential". All at once;
        even and odd ones in turn; one after another, upwards in the free phase and downwards in a
        nudged one. All take the same products; the last two settle in far fewer sweeps.
      feedback: γ, the weight of what comes from above relative to what comes from below, > 0.
      low: where hidden states are clipped below, < 1. With -1 units are on both sides of zero, and
        a deep network loses less of their signal.
      persistent: whether an example's free phase begins at its free states of the last time. As in
        the publication's code; otherwise at zero. The rule's state then is as large as the
        training set's activities.
      rates: factor on each layer's update, first layer first; None for ones.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.

    Returns:
      The rule. `predict` gives the output units' free states, in [0, 1] but not summing to 1. In
      Λ, `z` holds the free states, `targets` the nudged ones (of the positive nudge if centred),
      `errors` their difference over the nudge, an estimate of dC/ds, and `aux` the `Phases`, with
      the sweeps each took. `compute_targets` needs a key if the nudge is random.

    Raises:
      ValueError: a hyperparameter out of range, or rates that are not one per layer.
    """
    positive("beta", beta)
    one_of("nudge", nudge, NUDGES)
    at_least("free_steps", free_steps, 1)
    at_least("nudged_steps", nudged_steps, 1)
    positive("step_size", step_size)
    between("step_size", step_size, 0, 1)
    if tolerance is not None:
        at_least("tolerance", tolerance, 0)
    one_of("order", order, ORDERS)
    positive("feedback", feedback)
    below("low", low, 1)
    check_reduction(reduction)
    rates = (1.0,) * len(network.layers) if rates is None else tuple(rates)
    if len(rates) != len(network.layers):
        raise ValueError(
            f"rates={rates} must have one entry for each of {len(network.layers)} layers"
        )
    at_least("rates", rates, 0)
    top = len(network.layers) - 1
    scales = [rate * feedback ** (l - top) for l, rate in enumerate(rates)]

    def init(key):
        return Params(init_forward(network, key, w_init), no_feedback(network))

    def relax(params, x, start, steps, y=None, beta=0.0):
        """Settles the states; without a label, at β = 0."""
        # The input is clamped, so its drive is computed once.
        h_first = layers.pre(network.layers[0], params.forward[0], x)

        def top_down(s, l):
            above = network.layers[l + 1]
            below = layers.vjp_below(above, params.forward[l + 1], s[l], s[l + 1])
            return scaled(feedback, below)

        def move(s, l):
            # -dE/ds + s: what the layers below and above ask of the state
            drive = layers.pre(network.layers[l], params.forward[l], s[l - 1]) if l else h_first
            if l < top:
                return jnp.clip(s[l] + scaled(step_size, drive + top_down(s, l) - s[l]), low, 1)
            force = drive - s[l] if y is None else drive - s[l] + scaled(beta, y - s[l])
            return jnp.clip(s[l] + scaled(step_size, force), 0, 1)

        sweep = in_turn(move, order, downward=y is not None)
        return settle(sweep, start, steps, tolerance)

    def at_rest(params, x):
        """States of zero, with the dtype and on the devices of what will drive them."""
        h, _ = forward(network, params.forward, x)
        return tuple(map(jnp.zeros_like, h))

    def free_phase(params, x, start):
        return relax(params, x, start, free_steps)

    def predict(params, x):
        return free_phase(params, x, at_rest(params, x)).states[-1]

    def compute_targets(params, batch, *, key=None):
        return targets_from(at_rest(params, batch.x), params, batch, key)

    def init_state(params, num_examples):
        if num_examples is None:
            raise ValueError("num_examples=None: persistent=True keeps the states of so many")
        in_shape = (num_examples, *network.layers[0].in_shape)
        x = jax.ShapeDtypeStruct(in_shape, jnp.result_type(float))
        shapes = jax.eval_shape(at_rest, params, x)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def compute_persistent_targets(params, batch, *, key=None, state=None):
        if state is None:
            return compute_targets(params, batch, key=key)
        start = tuple(s[batch.rows] for s in state)
        lambda_ = targets_from(start, params, batch, key)
        settled = (s.at[batch.rows].set(z) for s, z in zip(state, lambda_.z, strict=True))
        return lambda_._replace(state=tuple(settled))

    def targets_from(start, params, batch, key):
        x = batch.x
        check_shapes(network, x)
        free = free_phase(params, x, start)
        y = labels(batch, free.states[-1])
        strength = jnp.asarray(beta, y.dtype)

        def nudged(beta):
            return relax(params, x, free.states, nudged_steps, y, beta)

        if nudge == "random":
            if key is None:
                raise ValueError("key=None: the nudge's sign is drawn, so pass key= or set nudge=")
            distance = jax.random.rademacher(key, (), dtype=y.dtype) * strength
            first, second = free, nudged(distance)
        elif nudge == "centred":
            first, second, distance = nudged(-strength), nudged(strength), 2 * strength
        else:
            first, second, distance = free, nudged(strength), strength
        z = free.states
        return Calculations(
            x=x,
            h=tuple(map(layers.pre, network.layers, params.forward, (x, *z[:-1]))),
            z=z,
            targets=second.states,
            errors=tuple(
                (a - b) / distance for a, b in zip(first.states, second.states, strict=True)
            ),
            aux=Phases(free, first, second, distance),
        )

    def energy_gradient(params, x, s):
        """dE/dθ of every layer, over the mini-batch."""
        negative = [
            -reduce_batch(s_l, reduction, theta)
            for s_l, theta in zip(s, params.forward, strict=True)
        ]
        return tuple(map(layers.vjp_theta, network.layers, params.forward, (x, *s[:-1]), negative))

    def calc_updates(params, lambda_):
        phases = lambda_.aux
        at_first = energy_gradient(params, lambda_.x, phases.first.states)
        at_second = energy_gradient(params, lambda_.x, phases.second.states)
        updates = (
            jax.tree.map(lambda a, b, scale=scale: scaled(scale, b - a) / phases.distance, a, b)
            for scale, a, b in zip(scales, at_first, at_second, strict=True)
        )
        return Params(tuple(updates), no_feedback(network))

    return Algorithm(
        init=init,
        compute_targets=compute_persistent_targets if persistent else compute_targets,
        calc_updates=calc_updates,
        predict=predict,
        loss=half_squared.value,
        network=network,
        init_state=init_state if persistent else None,
    )
