"""lrajax/cards.py: the properties of every rule, pinned, and costs counted by hand."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import pytest

import lrajax
from lrajax import cards, layers
from lrajax.cards import audit

SIZES = (12, 8, 7, 6, 4)
NETWORK = lrajax.mlp(SIZES)
ALL = (1, 2, 3)  # of the layers that have one below
# Whose W goes down, whether by its signs alone, whether φ′ is needed.
PROPERTIES = {
    "backprop": (ALL, False, True),
    "rfa": ((), False, True),
    "dfa": ((), False, True),
    "equil_prop": (ALL, False, False),
    "dtp": ((3,), False, True),
    "dtp_sigma": ((3,), False, True),
    "lra_e": ((), False, True),
    "rec_lra": ((), False, True),
    "kolen_pollack": ((), False, True),
    "sign_symmetric": (ALL, True, True),
    "predictive_coding": (ALL, False, True),
    "weight_mirror": ((), False, True),
    "direct_kolen_pollack": ((), False, True),
    "dual_prop": (ALL, False, False),
}


@functools.cache
def card(name):
    return audit(lrajax.ALGORITHMS[name], NETWORK)


@pytest.mark.parametrize("name", PROPERTIES)
def test_what_a_rule_needs(name):
    found = card(name)
    assert (found.transposes, found.signs_alone, found.derivatives) == PROPERTIES[name]


def test_every_rule_is_pinned():
    assert PROPERTIES.keys() == lrajax.RULES.keys()


def test_the_page_of_cards_and_the_readme_have_them(monkeypatch):
    """Of a network of as many layers; `python docs/tables.py` writes them."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "docs")
    import tables

    assert len(tables.SIZES) == len(SIZES)
    network = lrajax.mlp(tables.SIZES)
    counted = {name: products(make, network) for name, make in lrajax.ALGORITHMS.items()}
    for name, found in counted.items():
        ratio = f"{found / counted['backprop']:.2f}"
        cells = f"{' | '.join(tables.needs(card(name)))} | {ratio} |"
        assert f"| [`{name}`](../rules/{name}.md) | {cells}\n" in tables.CARDS.read_text()
        assert f"| [`{name}`](docs/rules/{name}.md) | {cells}\n" in tables.README.read_text()


def products(make, network):
    """What a step multiplies and adds; nothing is compiled for it."""
    key, rule = jax.random.key(0), make(network)
    params = jax.eval_shape(rule.init, key)
    return cards._products(cards._step(rule, key), params, cards._random_batch(network, key, 50))


def test_backprop_needs_more_than_signs_of_wide_layers():
    """Where some weight is always close to turning its sign."""
    network = lrajax.mlp((20, 32, 32, 4))
    assert not audit(lrajax.backprop, network).signs_alone


def test_without_derivatives_lra_e_asks_for_none():
    assert not audit(lrajax.lra_e, NETWORK, derivative=False).derivatives


@pytest.mark.parametrize("name", ["backprop", "rfa", "dfa", "lra_e", "rec_lra"])
def test_an_update_reads_its_own_layer_and_the_activity_below(name):
    reads = [set(each) for each in card(name).reads]
    assert reads[0] == {"h/0", "x", "errors/0"}
    assert reads[1:3] == [{f"h/{l}", f"z/{l - 1}", f"errors/{l}"} for l in (1, 2)]
    assert reads[3] == {"z/2", "errors/3"}


def test_products_are_those_counted_by_hand():
    pairs = list(itertools.pairwise(SIZES))
    up, down = (sum(n * m for n, m in some) for some in (pairs, pairs[1:]))
    batch, per_product = 50, 2
    assert card("backprop").products * 1e6 == per_product * batch * (2 * up + down)
    direct = sum(n * SIZES[-1] for n in SIZES[1:-1])
    assert card("dfa").products * 1e6 == per_product * batch * (2 * up + direct)
    assert card("backprop").products_over_backprop == 1


def test_depth_is_the_longest_path_to_the_first_update():
    layers_up = len(NETWORK.layers)
    # Up, down to the first hidden layer, and the update itself.
    assert card("backprop").depth == card("lra_e").depth == 2 * layers_up
    # Up, straight down, and the update.
    assert card("dfa").depth == layers_up + 2


def test_angles_are_those_of_the_diagnostics():
    assert card("backprop").angles == (0, 0, 0, 0)
    tied = lrajax.rfa(NETWORK).init(jax.random.key(0))
    tied = tied._replace(feedback=((), *({"w": theta["w"]} for theta in tied.forward[1:])))
    found = audit(lrajax.rfa, NETWORK, params=tied)
    assert max(found.angles) < 0.1
    assert found.feedback_angles == pytest.approx([0, 0, 0], abs=0.1)


def test_it_counts_layers_that_are_no_matrix():
    first = layers.conv((4, 4, 1), 3, 3)
    top = layers.reshaped(layers.dense(48, 4, "softmax"), first.out_shape)
    network = lrajax.Network((first, top), lrajax.losses.categorical)
    found = audit(lrajax.lra_e, network)
    assert found.transposes == ()
    assert audit(lrajax.backprop, network).transposes == (1,)
    assert found.products * 1e6 == 2 * 50 * 2 * 16 * 9 * 3 + 2 * 50 * 3 * 48 * 4


def test_parameters_stay_as_they_were():
    params = lrajax.lra_e(NETWORK).init(jax.random.key(1))
    before = jax.tree.map(jnp.copy, params)
    audit(lrajax.lra_e, NETWORK, params=params)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, before))
