"""A mini-batch, or seeds, split over devices by JAX's own means, for every rule."""

import itertools
import os
import pathlib
import subprocess
import sys

import lrajax

SCRIPT = pathlib.Path(__file__).with_name("sharded.py")


def test_every_rule_gives_the_update_of_one_device():
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    found = {(name, way): float(gap) for name, way, gap in map(str.split, done.stdout.splitlines())}
    ways = ("in_shard_map_mean", "on_explicit_axes_mean")
    names = (*lrajax.ALGORITHMS, "lra_e_on_images")
    more = ("by_seeds_mean", "in_shard_map_sum")
    of_own_products = ("lra_e", "rec_lra", "direct_kolen_pollack", "weight_mirror")
    assert found.keys() == {
        *itertools.product(names, ways),
        *itertools.product(of_own_products, more),
    }
    assert {case: gap for case, gap in found.items() if gap > 1e-6} == {}
