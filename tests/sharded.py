"""Compares every rule on one device with a mini-batch split over two, in `jax.shard_map` and on a
mesh with explicit axes. Run by test_sharded.py as a process of its own: how many devices a CPU
shows must be said before JAX starts.

    python tests/sharded.py

Prints the largest difference of each rule's update, a line each: RULE, way, difference. By seeds
each device has parameters of its own and the whole mini-batch.
"""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

import jax
import jax.numpy as jnp
import numpy as np
import reference
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lrajax
from lrajax import layers, losses, steps
from lrajax.algorithms import _dtp, _weight_mirror

SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()
KEY = jax.random.key(0)


def in_shard_map(updates):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(updates, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=WHOLE))


def by_seeds(updates):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))

    def one(params, batch):
        found = updates(jax.tree.map(lambda leaf: leaf[0], params), batch)
        return jax.tree.map(lambda leaf: leaf[None], found)

    split = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=(SPLIT, WHOLE), out_specs=SPLIT))

    def computed(params, batch):
        twice = split(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params), batch)
        return jax.tree.map(lambda leaf: leaf[1], twice)

    return computed


def on_explicit_axes(updates):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))

    def computed(params, batch):
        with jax.set_mesh(mesh):
            there = jax.device_put(params, NamedSharding(mesh, WHOLE))
            return jax.jit(updates)(there, jax.device_put(batch, NamedSharding(mesh, SPLIT)))

    return computed


WAYS = {"mean": (in_shard_map, on_explicit_axes)}
# Of the rules that reduce products of their own.
MORE_WAYS = {"mean": (*WAYS["mean"], by_seeds), "sum": (in_shard_map,)}
OWN_PRODUCTS = ("lra_e", "rec_lra", "direct_kolen_pollack", "weight_mirror")


def gap(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs)


def of_images():
    first = layers.conv((3, 8, 4), 3, 3)
    second = layers.conv(first.out_shape, 2, 3)
    output = layers.reshaped(layers.dense(48, 2, "softmax"), second.out_shape)
    return lrajax.Network((first, second, output), losses.categorical)


def main():
    # Each device draws for its own part; where noise is the same everywhere, results must be too.
    for rule in (_dtp, _weight_mirror):
        rule.standard_normal = lambda key, shape: jnp.ones(shape)
    dense = lrajax.mlp((5, 4, 6, 3, 2))
    cases = {name: (factory, dense) for name, factory in lrajax.ALGORITHMS.items()}
    cases["lra_e_on_images"] = lrajax.lra_e, of_images()
    for name, (factory, network) in cases.items():
        for reduction, ways in (MORE_WAYS if name in OWN_PRODUCTS else WAYS).items():
            rule = factory(network, reduction=reduction)
            params, batch = reference.make_params(rule), reference.make_batch(rule.network, 8)

            def updates(params, batch, rule=rule):
                lambda_ = rule.compute_targets(params, batch, key=KEY)
                found = rule.calc_updates(params, lambda_)
                return steps.once_known(lambda_.errors[0], found)  # as make_train_step has them

            expected = jax.jit(updates)(params, batch)
            for way in ways:
                found = gap(way(updates)(params, batch), expected)
                print(name, f"{way.__name__}_{reduction}", found, flush=True)


if __name__ == "__main__":
    main()
