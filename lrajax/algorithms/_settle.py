"""Settling: sweeps over the states of a layered network until they move no more.

Equilibrium propagation and predictive coding descend an energy of their states, and what moves a
layer's state hangs on the layers next to it alone. So a sweep can take them

    synchronously    all layers at once, each from its neighbours' states before the sweep,
    asynchronously   even and odd layers in turn, each from its neighbours' newest states,

at the same number of products. With whole steps the second descends the energy one layer at a time,
block coordinate descent, where the first may swing for ever; a step above 1 is over-relaxation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

States = tuple[Array, ...]

ORDERS = ("synchronous", "asynchronous", "sequential")


class Settled(NamedTuple):
    """Where a phase ended.

    Attributes:
      states: of every layer, [B, *out_shape].
      sweeps: how many were made, int32 [].
    """

    states: States
    sweeps: Int[Array, ""]


def settle(
    move: Callable[[States, int], Array],
    states: States,
    sweeps: int,
    *,
    order: str,
    tolerance: float | None = None,
    downward: bool = False,
) -> Settled:
    """Sweeps over the layers until no state moves by more than the tolerance.

    Args:
      move: `(states, l) -> state`, the next state of layer l.
      states: where to begin.
      sweeps: how many at most.
      order: "synchronous" or "asynchronous".
      tolerance: None makes every sweep.
      downward: whether the uppermost layer is among the first of an asynchronous sweep, rather
        than the lowest: begin where the news is.
    """
    layers = range(len(states))[:: -1 if downward else 1]
    turns = {
        "synchronous": [layers],
        "asynchronous": [layers[::2], layers[1::2]],
        "sequential": [[l] for l in layers],
    }[order]

    def sweep(states: States) -> States:
        for turn in turns:
            states = tuple(move(states, l) if l in turn else s for l, s in enumerate(states))
        return states

    if tolerance is None:
        return Settled(
            jax.lax.fori_loop(0, sweeps, lambda _, s: sweep(s), states),
            jnp.asarray(sweeps, jnp.int32),
        )

    def unsettled(carry):
        settled, change = carry
        return (settled.sweeps < sweeps) & (change > tolerance)

    def body(carry):
        (states, made), _ = carry
        moved = sweep(states)
        change = jnp.stack([jnp.abs(b - a).max() for a, b in zip(states, moved, strict=True)])
        return Settled(moved, made + 1), change.max()

    return jax.lax.while_loop(unsettled, body, (Settled(states, jnp.int32(0)), jnp.inf))[0]
