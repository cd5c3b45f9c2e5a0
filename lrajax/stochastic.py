"""Rules on networks whose layers draw random numbers, such as `lrajax.layers.dropout`.

A layer closes over its key, so a network with new masks is a new network: `stochastic` makes one at
every step, from the key that `compute_targets` gets.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Algorithm, PyTree


class Drawn(NamedTuple):
    """What `Calculations.aux` holds for a rule on a stochastic network.

    Attributes:
      key: the layers'.
      aux: the rule's own.
    """

    key: PRNGKeyArray
    aux: PyTree


def stochastic(make_algorithm: Callable[[PRNGKeyArray | None], Algorithm]) -> Algorithm:
    """Makes one rule of a function that makes it for every key of the layers.

    Args:
      make_algorithm: gives a rule on a network whose layers draw from the key; without one, on the
        network to predict with.

    Returns:
      The rule. `compute_targets` needs a key: the layers draw from it, and the rule gets another.
      `calc_updates` sees the same masks; `init`, `predict` and `loss` are those without a key.
    """
    plain = make_algorithm(None)

    def compute_targets(params, batch, *, key=None):
        if key is None:
            raise ValueError("key=None: the layers draw, so pass compute_targets(..., key=key)")
        layers_key, rule_key = jax.random.split(key)
        rule = make_algorithm(layers_key)
        lambda_ = rule.compute_targets(params, batch, key=rule_key)
        return lambda_._replace(aux=Drawn(layers_key, lambda_.aux))

    def calc_updates(params, lambda_):
        rule = make_algorithm(lambda_.aux.key)
        return rule.calc_updates(params, lambda_._replace(aux=lambda_.aux.aux))

    return plain._replace(compute_targets=compute_targets, calc_updates=calc_updates)


def split(key: PRNGKeyArray | None, num: int) -> tuple[None, ...] | Array:
    """A key for each of `num` layers; None for each of them, without a key."""
    return (None,) * num if key is None else jax.random.split(key, num)
