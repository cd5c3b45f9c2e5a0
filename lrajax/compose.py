"""Rules made of rules: a rule for each layer, layers with shared weights, layers that draw.

A layer that draws random numbers, such as `lrajax.layers.dropout`, closes over its key, so a
network with new masks is a new network: `stochastic` makes one at every step, from the key that
`compute_targets` gets.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PRNGKeyArray

from lrajax.base import Algorithm, Calculations, Params, PyTree


def by_layer(rules: Sequence[Algorithm]) -> Algorithm:
    """Makes a rule that trains each layer by a rule of its own.

    DFA for the lower half of a network and LRA-E for the upper one:
    `by_layer([dfa] * 2 + [lra_e] * 2)`, with `dfa = lrajax.dfa(network)` and so on.

    Each rule computes on the whole network, and a layer takes what its own rule finds for it; a
    compiler drops what no layer takes. So an error that a rule passes down goes through that rule's
    feedback weights all the way from the output. These learn as the rule says, above its own layers
    too, though the forward weights there follow another rule.

    Args:
      rules: one for each layer, first layer first, all on the same network. The same object
        wherever it is the same rule, so that its work and its feedback weights are there once.

    Returns:
      The rule. `params.feedback[l]` is a tuple with the entry `l` of every distinct rule, in order
      of first appearance, or `()` where no rule has one. In Λ, layer `l` has its own rule's values,
      and `aux` has every distinct rule's Λ. `predict` and `loss` are the last layer's rule's.

    Raises:
      ValueError: not one rule for each layer, or rules whose forward parameters differ in shape.
        Networks that differ otherwise, in an activation say, are not told apart.
    """
    distinct = tuple(dict.fromkeys(rules))
    owners = [distinct.index(rule) for rule in rules]
    _check(distinct, len(owners))
    has_state = any(rule.init_state for rule in distinct)

    def own(per_rule):
        """Of every distinct rule's per-layer tuple the entries of the layers that it trains."""
        return tuple(per_rule[i][l] for l, i in enumerate(owners))

    def join(per_rule):
        """Every distinct rule's feedback entries, layer by layer."""
        return tuple(
            entries if jax.tree.leaves(entries) else () for entries in zip(*per_rule, strict=True)
        )

    def params_of(i: int, params: Params) -> Params:
        return params._replace(feedback=tuple(e[i] if e else () for e in params.feedback))

    def init(key):
        keys = jax.random.split(key, len(distinct))
        made = [rule.init(key) for rule, key in zip(distinct, keys, strict=True)]
        return Params(own([p.forward for p in made]), join([p.feedback for p in made]))

    def init_state(params, num_examples):
        return tuple(
            rule.init_state(params_of(i, params), num_examples) if rule.init_state else ()
            for i, rule in enumerate(distinct)
        )

    def own_state(i, state):
        return {"state": state[i]} if state is not None and distinct[i].init_state else {}

    def compute_targets(params, batch, *, key=None, state=None):
        # One key serves all: no layer's update has two rules' noise in it.
        found = tuple(
            rule.compute_targets(params_of(i, params), batch, key=key, **own_state(i, state))
            for i, rule in enumerate(distinct)
        )
        return Calculations(
            x=found[0].x,
            h=own([lambda_.h for lambda_ in found]),
            z=own([lambda_.z for lambda_ in found]),
            targets=own([lambda_.targets for lambda_ in found]),
            errors=own([lambda_.errors for lambda_ in found]),
            aux=found,
            state=tuple(lambda_.state for lambda_ in found) if has_state else (),
        )

    def calc_updates(params, lambda_):
        found = [
            rule.calc_updates(params_of(i, params), lambda_.aux[i])
            for i, rule in enumerate(distinct)
        ]
        return Params(own([u.forward for u in found]), join([u.feedback for u in found]))

    def predict(params: Params, x: Array) -> Array:
        return rules[-1].predict(params_of(owners[-1], params), x)

    return Algorithm(
        init,
        compute_targets,
        calc_updates,
        predict,
        loss=rules[-1].loss,
        network=rules[-1].network,
        init_state=init_state if has_state else None,
    )


def _check(distinct: Sequence[Algorithm], n_rules: int) -> None:
    """Raises ValueError unless the rules are on one network with `n_rules` layers."""
    if not distinct:
        raise ValueError("rules is empty: give one rule for each layer")
    first, *others = (
        jax.eval_shape(lambda rule=rule: rule.init(jax.random.key(0))).forward for rule in distinct
    )
    if any(forward != first for forward in others):
        raise ValueError("rules are on different networks: make them all on the same one")
    if len(first) != n_rules:
        raise ValueError(f"rules has {n_rules} entries: give one for each of {len(first)} layers")


def tied(rule: Algorithm, owners: Sequence[int]) -> Algorithm:
    """Makes a rule whose layers share weights, such as a recurrent network unrolled over time.

    Each set of shared weights gets the sum of its layers' updates; so it decays as often, if the
    rule decays weights. E is shared like W, where it has one shape.

    Args:
      rule: on a network with layers of equal parameters.
      owners: for each layer the first layer with its weights; its own index if it is that one.

    Returns:
      The rule. `params.forward[l]` and `params.feedback[l]` are `()` where another layer's serve.

    Raises:
      ValueError: not one owner for each layer, an owner with other parameters, or a shared layer
        that keeps a state.
    """
    shapes = jax.eval_shape(rule.init, jax.eval_shape(jax.random.key, 0))
    _check_owners(rule, shapes.forward, owners)
    # Of E the first layer has none, and a rule may have one that differs from layer to layer.
    first_like = [
        next(k for k in range(l + 1) if owners[k] == owners[l] and shapes.feedback[k] == e)
        for l, e in enumerate(shapes.feedback)
    ]
    both = Params(tuple(owners), tuple(first_like))

    def kept(params):
        """Only the owners' entries."""
        return Params(
            *(
                tuple(
                    entry if l == owner else ()
                    for l, (entry, owner) in enumerate(zip(*pair, strict=True))
                )
                for pair in zip(params, both, strict=True)
            )
        )

    def everywhere(params):
        """Every layer's entry."""
        return Params(
            *(
                tuple(entries[owner] for owner in owners_)
                for entries, owners_ in zip(params, both, strict=True)
            )
        )

    def summed(updates):
        return Params(*map(_summed, updates, both))

    start, network = rule.init_state, rule.network
    if network:  # a layer whose weights are another's finds no parameters to begin a state from
        layers = list(network.layers)
        for l, owner in enumerate(owners):
            if l != owner:
                layers[l] = layers[l]._replace(init_state=lambda _: ())
        network = network._replace(layers=tuple(layers))
    return rule._replace(
        network=network,
        init=lambda key: kept(rule.init(key)),
        compute_targets=lambda params, batch, **more: rule.compute_targets(
            everywhere(params), batch, **more
        ),
        calc_updates=lambda params, lambda_: summed(rule.calc_updates(everywhere(params), lambda_)),
        predict=lambda params, x: rule.predict(everywhere(params), x),
        init_state=start and (lambda params, num_examples: start(everywhere(params), num_examples)),
    )


def _summed(entries: Sequence[PyTree], owners: Sequence[int]) -> tuple[PyTree, ...]:
    """Of each owner the sum over the layers that it serves."""
    totals: list[PyTree] = [()] * len(entries)
    for entry, owner in zip(entries, owners, strict=True):
        found = totals[owner]
        totals[owner] = jax.tree.map(jnp.add, found, entry) if jax.tree.leaves(found) else entry
    return tuple(totals)


def _check_owners(rule: Algorithm, forward: tuple[PyTree, ...], owners: Sequence[int]) -> None:
    if len(owners) != len(forward):
        raise ValueError(f"owners has {len(owners)} entries: give one for each of {len(forward)}")
    for l, owner in enumerate(owners):
        if not 0 <= owner <= l or owners[owner] != owner:
            raise ValueError(f"owners[{l}]={owner} must be the first layer with these weights")
        if forward[l] != forward[owner]:
            raise ValueError(f"owners[{l}]={owner}, whose parameters have other shapes")
        state = rule.network and jax.eval_shape(rule.network.layers[l].init_state, forward[l])
        if owner != l and jax.tree.leaves(state):
            raise ValueError(f"owners[{l}]={owner}: a layer with a state cannot share its weights")


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

    def compute_targets(params, batch, *, key=None, **state):
        if key is None:
            raise ValueError("key=None: the layers draw, so pass compute_targets(..., key=key)")
        layers_key, rule_key = jax.random.split(key)
        rule = make_algorithm(layers_key)
        lambda_ = rule.compute_targets(params, batch, key=rule_key, **state)
        return lambda_._replace(aux=Drawn(layers_key, lambda_.aux))

    def calc_updates(params, lambda_):
        rule = make_algorithm(lambda_.aux.key)
        return rule.calc_updates(params, lambda_._replace(aux=lambda_.aux.aux))

    return plain._replace(compute_targets=compute_targets, calc_updates=calc_updates)


def in_dtype(algo: Algorithm, dtype: DTypeLike) -> Algorithm:
    """The rule with parameters of another dtype, in which it computes everything else too.

    Layers compute in the dtype of their parameters, rules in that of the activities, and optax
    keeps its states in that of the parameters; x and y may be of any. What is less than a rounding
    error of a parameter is lost: bfloat16 has 8 bits of it, so take larger rates than in float32.

    Args:
      algo: the rule.
      dtype: of floats, such as `jnp.bfloat16`.
    """

    def init(key):
        return jax.tree.map(lambda p: p.astype(dtype), algo.init(key))

    return algo._replace(init=init)


def split(key: PRNGKeyArray | None, num: int) -> tuple[None, ...] | Array:
    """A key for each of `num` layers; None for each of them, without a key."""
    return (None,) * num if key is None else jax.random.split(key, num)
