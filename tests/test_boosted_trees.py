"""experiments/boosted_trees.py."""

import json
import os
import pathlib
import sys

import numpy as np
import pytest
from commands import run

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "experiments"))


@pytest.fixture(scope="module")
def trees():
    import boosted_trees

    return boosted_trees


def test_an_ensemble_goes_its_rate_of_the_way(trees):
    """On 8 examples that a tree can tell apart: residuals shrink by 1 - λ with every tree."""
    x = np.arange(8.0)[:, None].repeat(2, axis=1)
    target = np.random.default_rng(0).normal(size=(8, 3))
    ensemble, output = trees.Trees(np.random.default_rng(1)), np.zeros((8, 3))
    for count in (1, 2, 3):
        ensemble.grow(x, target - output, rate=0.25)
        output = ensemble(x)
        np.testing.assert_allclose(output, target * (1 - 0.75**count), rtol=1e-6)


def test_the_nearest_linear_map_of_a_linear_layer_is_its_own(trees):
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(5000, 4)), rng.normal(size=(4, 3))
    np.testing.assert_allclose(trees.linear_transpose(z, z @ w + 1), w.T, atol=0.05)


def test_targets_are_lra_es_by_hand(trees):
    """Two layers: E of the softmax gives the upper layer's target, its error the lower's."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), np.arange(30) % 3
    stack = trees.Stack(x, y, rng)
    h, z = stack.hidden(x)
    error = rng.normal(size=(30, 3))
    lower, upper = stack.aligned(h, z, error, learned=False)
    expected = np.tanh(h[1] - trees.BETA * error @ stack.e_top)
    np.testing.assert_allclose(upper, expected)
    displaced = h[0] - trees.BETA * (-2 * (expected - z[2])) @ stack.e[0]
    np.testing.assert_allclose(lower, np.tanh(displaced))


def test_what_targets_are_worth_by_hand(trees):
    """The loss with the upper layer at its target; trees explain the examples they grew on."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), np.arange(40) % 3
    stack = trees.Stack(x, y, rng)
    stack.round(x, "target_propagation")
    grown = [len(inverse.trees) for inverse in stack.inverses]
    found = stack.diagnose(x, y, "lra_e")
    h, z = stack.hidden(x)
    target = np.tanh(h[1] - trees.BETA * (stack.probabilities(z[2]) - stack.labels) @ stack.e_top)
    answers = [stack.probabilities(z)[np.arange(40), y] for z in (target, z[2])]
    at_target, before = (-np.log(answer).mean() for answer in answers)
    np.testing.assert_allclose(found["at_target"][1], at_target / before, rtol=1e-6)
    assert all(0.2 < share <= 1 for share in found["r2"])
    stack.diagnose(x, y, "target_propagation")
    assert [len(inverse.trees) for inverse in stack.inverses] == grown


def test_the_command_writes_every_rules_accuracies_or_names_the_flag(trees, tmp_path):
    flags = ("--dataset=wine", "--seeds=1", "--rounds=1", "--out_dir=~")
    done = run("boosted_trees.py", *flags, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    rules = json.loads((tmp_path / "boosted_trees" / "wine.json").read_text())["rules"]
    assert rules.keys() == set(trees.RULES)
    refused = run("boosted_trees.py", "--rounds=0")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("boosted_trees.py: --rounds=0 must be")


def test_layers_that_learn_are_ahead_of_frozen_ones_on_the_training_set(trees):
    found = {rule: trees.train(rule, "wine", 0, rounds=6) for rule in ("lra_e", "frozen")}
    assert found["lra_e"]["train"] > found["frozen"]["train"]
