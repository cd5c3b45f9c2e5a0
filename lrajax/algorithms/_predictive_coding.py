"""Predictive coding (Whittington and Bogacz 2017): inference, then learning.

    F    = Σ_{l<L} ½ ‖x^l - μ^l‖² + β loss(y, μ^L),   μ^l = φ(h^l),   h^l = W^l x^{l-1} + b^l
    e^l  = dF/dμ^l = μ^l - x^l,   e^L = dF/dh^L = β dloss/dh^L          error units
    x^l <- x^l - ε dF/dx^l = x^l + ε (e^l - (W^{l+1})ᵀ δ^{l+1}),   δ^l = e^l ⊗ φ′(h^l),   δ^L = e^L
    ΔW^l = (1/β) dF/dW^l = (1/β) δ^l (x^{l-1})ᵀ

The input x^0 and the label are clamped. The states x^l of the hidden layers begin as the
feed-forward activities, where no unit but the output's has an error, and descend F together; the
update follows at the states they reach. As in equilibrium propagation the feedback path is the
transpose of the forward one. With n small steps the k-th layer below the output gets backprop's
update times (n choose k) ε^k, in deep networks less than float32 can tell from nothing; settled
states have taken part of the output's error upon themselves, and the update is another.

In the coordinates of the errors (ePC; Goemaere, Oliviers, Bogacz and Demeester 2026) the hidden
e^l are what moves, and x^l = μ^l - e^l follows from the lowest layer up:

    e^l <- e^l + ε (g^l - e^l),   g^l = (W^{l+1})ᵀ (g^{l+1} ⊗ φ′(h^{l+1})),   g^L = β dloss/dh^L

The same F in other coordinates, so the same settled states, but a step carries the output's error
to every layer at once: by backprop, through the whole network. The first step from e = 0 gives ε
times backprop's errors: with one step this is backprop, up to what it moves the states by.

The publication's states are pre-activities that predict by W φ(x), its output is Gaussian, and its
β is 1; here they are post-activities, as the layers have them, and the output has the network's
loss.
"""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lrajax import initializers, layers
from lrajax.algorithms._rule import factory
from lrajax.algorithms._settle import ORDERS, States, in_turn, settle
from lrajax.base import Algorithm, Calculations, Initializer, Network, Params
from lrajax.checks import at_least, between, one_of, positive
from lrajax.steps import (
    batch_size,
    check_reduction,
    forward,
    init_forward,
    labels,
    local_updates,
    no_feedback,
    output_error,
    predict,
    scaled,
)

NUDGES = ("positive", "centred")
COORDINATES = ("states", "errors")
RESOLVED = 2.0**-24  # what float32 can add to 1


class Phase(NamedTuple):
    """Where a relaxation ended, or all that it passed (incremental), one after another.

    Attributes:
      states: x of the hidden layers, [B, *out_shape], or [steps B, *out_shape].
      deltas: δ of every layer there, likewise.
      sweeps: how many were made, int32 [].
    """

    states: States
    deltas: States
    sweeps: Array


@factory
def predictive_coding(
    network: Network,
    *,
    steps: int = 20,
    step_size: float = 0.05,
    tolerance: float | None = None,
    order: str = "synchronous",
    coordinates: str = "states",
    nudge: str = "positive",
    beta: float = 1.0,
    incremental: bool = False,
    reduction: str = "sum",
    w_init: Initializer = initializers.GLOROT,
) -> Algorithm:
    """Makes predictive coding for a network.

    Args:
      network: the network to train.
      steps: steps of relaxation, >= 1. Of states, an error moves down one layer a step: with fewer
        steps than hidden layers the lowest layers learn nothing.
      step_size: Euler step ε of the relaxation, in (0, 1].
      tolerance: ends a relaxation once nothing moves by more than this; None never does.
      order: of the layers in a sweep: "synchronous", "asynchronous" or "sequential". Of states
        alone: all at once; even and odd ones in turn; one after another, downwards.
      coordinates: what moves: "states" or "errors" (ePC). Deep networks need the errors.
      nudge: "positive" or "centred". Centred is half the difference of the updates at β and at -β,
        whose distance from the loss's gradient falls with β².
      beta: β, the weight of the output's loss in F, > 0.
      incremental: whether the update is the sum of those at every step (iPC). Rather than the one
        where the relaxation ends: to the first order in λ that of incremental predictive coding
        (Salvatori et al. 2024), which changes the weights at every step.
      reduction: "sum" or "mean" of the updates over the mini-batch.
      w_init: initialiser of the forward weights.

    Returns:
      The rule; its `params.feedback` is empty. In Λ, `z` holds the feed-forward activities,
      `targets` the relaxed states (at β, if centred), `errors` their difference, and `aux` a
      `Phase` for each nudge.

    Raises:
      ValueError: a hyperparameter out of range, an unknown reduction, or a tolerance for an
        incremental update.

    Warns:
      UserWarning: so few and small steps of states that float32 resolves nothing of what arrives at
        the lowest layer.
    """
    at_least("steps", steps, 1)
    positive("step_size", step_size)
    between("step_size", step_size, 0, 1)
    if tolerance is not None:
        at_least("tolerance", tolerance, 0)
        if incremental:
            raise ValueError("tolerance= does not go with incremental=True: drop it")
    one_of("order", order, ORDERS)
    one_of("coordinates", coordinates, COORDINATES)
    one_of("nudge", nudge, NUDGES)
    positive("beta", beta)
    check_reduction(reduction)
    if coordinates == "states":
        _warn_of_silence(steps, step_size, len(network.layers) - 1, order)

    def init(key):
        return Params(init_forward(network, key, w_init), no_feedback(network))

    def errors_of(params, h_first, x):
        """h^l of every layer, e^l of the hidden ones, given the states of these."""
        h = (h_first, *map(layers.pre, network.layers[1:], params.forward[1:], x))
        mu = map(layers.post, network.layers[:-1], h[:-1])
        return h, tuple(map(jnp.subtract, mu, x))

    def deltas_of(h, e, batch, beta):
        """δ^l of every layer."""
        hidden = map(layers.vjp_post, network.layers[:-1], h[:-1], e)
        output = layers.post(network.layers[-1], h[-1])
        return (*hidden, scaled(beta, output_error(network, batch, h[-1], output)))

    def descend_states(params, h_first, batch, beta):
        def move(x, l):
            h, e = errors_of(params, h_first, x)
            delta = deltas_of(h, e, batch, beta)[l + 1]
            down = layers.vjp_below(network.layers[l + 1], params.forward[l + 1], x[l], delta)
            return x[l] + scaled(step_size, e[l] - down)

        return in_turn(move, order, downward=True)

    def states_of(params, h_first, e):
        """x^l = μ^l - e^l, from the lowest layer up; h^l of every layer."""
        h, x = [h_first], []
        for l, e_l in enumerate(e):
            x.append(layers.post(network.layers[l], h[l]) - e_l)
            h.append(layers.pre(network.layers[l + 1], params.forward[l + 1], x[l]))
        return tuple(x), tuple(h)

    def descend_errors(params, h_first, batch, beta):
        def sweep(e):
            x, h = states_of(params, h_first, e)
            *_, delta = deltas_of(h, e, batch, beta)
            moved: list[Array] = []
            for l in reversed(range(len(e))):
                g = layers.vjp_below(network.layers[l + 1], params.forward[l + 1], x[l], delta)
                delta = layers.vjp_post(network.layers[l], h[l], g)
                moved.insert(0, e[l] + scaled(step_size, g - e[l]))
            return tuple(moved)

        return sweep

    def relax(params, h_first, z, batch, beta):
        by_error = coordinates == "errors"
        sweep = (descend_errors if by_error else descend_states)(params, h_first, batch, beta)
        start = tuple(map(jnp.zeros_like, z)) if by_error else z

        def at(coordinate):
            """The states, and δ: of e itself where that moves, as x = μ - e may round it away."""
            if by_error:
                e, (x, h) = coordinate, states_of(params, h_first, coordinate)
            else:
                x, (h, e) = coordinate, errors_of(params, h_first, coordinate)
            return x, deltas_of(h, e, batch, beta)

        if not incremental:
            reached, sweeps = settle(sweep, start, steps, tolerance)
            x, deltas = at(reached)
            return x, Phase(x, deltas, sweeps)

        def step(coordinate, _):
            coordinate = sweep(coordinate)
            return coordinate, at(coordinate)

        reached, passed = jax.lax.scan(step, start, length=steps)
        x, deltas = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), passed)
        return at(reached)[0], Phase(x, deltas, jnp.asarray(steps, jnp.int32))

    def compute_targets(params, batch, *, key=None):
        del key
        h, z = forward(network, params.forward, batch.x)
        output = output_error(network, batch, h[-1], z[-1])
        # The input is clamped, so the first pre-activity stays what it is.
        nudges = (beta,) if nudge == "positive" else (beta, -beta)
        found = [relax(params, h[0], z[:-1], batch, nudge) for nudge in nudges]
        (x, _), phases = found[0], tuple(phase for _, phase in found)
        errors = (*map(jnp.subtract, z[:-1], x), output)
        return Calculations(batch.x, h, z, (*x, labels(batch, z[-1])), errors, aux=phases)

    def calc_updates(params, lambda_):
        size = len(lambda_.x)

        def at(phase):
            """dF/dθ, summed over the states of a phase."""
            times = len(phase.deltas[-1]) // max(size, 1)
            x = (
                jnp.tile(lambda_.x, (times, *[1] * (lambda_.x.ndim - 1)))
                if times > 1
                else lambda_.x
            )
            passed = lambda_._replace(x=x, z=(*phase.states, lambda_.z[-1]))
            deltas = phase.deltas
            if reduction == "mean":
                deltas = [
                    delta / batch_size(lambda_.z[-1], theta)
                    for delta, theta in zip(deltas, params.forward, strict=True)
                ]
            return local_updates(network, params.forward, passed, deltas, "sum")

        first, *second = map(at, lambda_.aux)
        if not second:
            return Params(
                jax.tree.map(lambda a: a / jnp.asarray(beta, a.dtype), first), no_feedback(network)
            )
        updates = jax.tree.map(
            lambda a, b: (a - b) / jnp.asarray(2 * beta, a.dtype), first, second[0]
        )
        return Params(updates, no_feedback(network))

    return Algorithm(
        init=init,
        compute_targets=compute_targets,
        calc_updates=calc_updates,
        predict=lambda params, x: predict(network, params.forward, x),
        loss=network.output_loss.value,
        network=network,
    )


def _warn_of_silence(steps: int, step_size: float, hidden_layers: int, order: str) -> None:
    """Warns if the lowest layer gets less of backprop's error than float32 resolves."""
    if isinstance(step_size, jax.core.Tracer):
        return
    # The ways down, a hop at a time: one hop a step, or in turn as many as there are layers.
    most = steps if order == "synchronous" else steps + hidden_layers - 1
    arriving = math.comb(most, hidden_layers) * step_size**hidden_layers
    if arriving < RESOLVED:
        warnings.warn(
            f"steps={steps} of step_size={step_size} bring the lowest of {hidden_layers} hidden "
            f"layers {arriving:.0e} of the output's error, less than float32 resolves: raise them, "
            'or set coordinates="errors"',
            stacklevel=3,
        )
