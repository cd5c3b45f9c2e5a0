"""Settling: sweeps over the states of a layered network until they move no more.

Equilibrium propagation and predictive coding descend an energy of their states, and what moves a
layer's state hangs on the layers next to it alone. So a sweep can take them

    synchronously    all layers at once, each from its neighbours' states before the sweep,
    asynchronously   even and odd layers in turn, each from its neighbours' newest states,
    sequentially     one layer after another, so that news crosses all of them in a sweep,

at the same number of products. With whole steps the last two descend the energy a layer at a time,
where the first may swing for ever.
"""

from collections.abc import Callable, Sequence
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


def in_turn(
    move: Callable[[States, int], Array], order: str, *, downward: bool = False
) -> Callable[[States], States]:
    """A sweep over the layers.

    Args:
      move: `(states, l) -> state`, the next state of layer l.
      order: one of `ORDERS`.
      downward: whether a sweep in turn begins with the uppermost layer, rather than the lowest:
        begin where the news is.
    """

    def sweep(states: States) -> States:
        layers = range(len(states))[:: -1 if downward else 1]
        orders: dict[str, Sequence[Sequence[int]]] = {
            "synchronous": [layers],
            "asynchronous": [layers[::2], layers[1::2]],
            "sequential": [[l] for l in layers],
        }
        for turn in orders[order]:
            states = tuple(move(states, l) if l in turn else s for l, s in enumerate(states))
        return states

    return sweep


def settle(
    sweep: Callable[[States], States],
    states: States,
    sweeps: int,
    tolerance: float | None = None,
) -> Settled:
    """Sweeps until no state moves by more than the tolerance.

    Args:
      sweep: `states -> states`.
      states: where to begin.
      sweeps: how many at most.
      tolerance: None makes every sweep.
    """
    if tolerance is None or not states:
        states = jax.lax.fori_loop(0, sweeps, lambda _, s: sweep(s), states)
        return Settled(states, jnp.asarray(sweeps, jnp.int32))

    def unsettled(carry):
        settled, change = carry
        return (settled.sweeps < sweeps) & (change > tolerance)

    def body(carry):
        (states, made), _ = carry
        moved = sweep(states)
        changes = [jnp.abs(b - a).max(initial=0) for a, b in zip(states, moved, strict=True)]
        return Settled(moved, made + 1), jnp.stack(changes).max()

    # Like the states where `jax.shard_map` splits the batch: each part settles by itself.
    endless = jnp.full_like(states[0], jnp.inf, shape=())
    return jax.lax.while_loop(unsettled, body, (Settled(states, jnp.int32(0)), endless))[0]
