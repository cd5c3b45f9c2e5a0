"""The settings that experiments start from: one table, a line for each rule.

Where a preset differs from the paper, the paper is silent or does not work as printed;
docs/evidence/ gives the evidence, a page a rule.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

import lrajax


def normalized_sgd(lr: float) -> optax.GradientTransformation:
    """SGD in which every matrix and bias moves by `lr`."""
    return optax.chain(lrajax.normalize_updates(), optax.sgd(lr))


OPTIMIZERS = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "normalized_sgd": normalized_sgd,
}

# The paper's global step sizes λ.
LEARNING_RATES = {"sgd": 0.01, "adam": 0.001, "rmsprop": 0.001, "normalized_sgd": 0.01}

# Table 3: where another step size served LRA-E better on validation error.
LRA_E_RATES = {**LEARNING_RATES, "adam": 0.0003}


class Preset(NamedTuple):
    """How a rule is trained.

    Attributes:
      opt: a key of `OPTIMIZERS`.
      hyperparameters: in which the run differs from the factory's defaults.
      lr: λ under `opt`; None for the paper's.
    """

    opt: str
    hyperparameters: Mapping[str, Any] = {}
    lr: float | None = None

    def rate(self, opt: str) -> float | None:
        """λ under an optimiser; None for one that is not known."""
        return self.lr if self.lr and opt == self.opt else LEARNING_RATES.get(opt)


PRESETS = {
    "backprop": Preset("sgd", {"reduction": "mean"}),
    "equil_prop": Preset("sgd"),
    "rfa": Preset("sgd"),
    "dfa": Preset("sgd"),
    "dtp": Preset("rmsprop"),
    "dtp_sigma": Preset("rmsprop", lr=0.0003),
    "lra_e": Preset("sgd"),
    "rec_lra": Preset("sgd"),
    "kolen_pollack": Preset("rmsprop"),
    "sign_symmetric": Preset("rmsprop"),
    "predictive_coding": Preset("adam"),
}

# Equilibrium propagation in few steps: whole ones (ε = 1), from small weights, and a difference
# of two nudges, from which what the free phase has still to settle drops out.
EP = {"step_size": 1.0, "nudge": "centred", "w_init": "gaussian:0.03"}

# What deeper networks need: from this number of hidden layers up to the rule's next.
DEPTH_PRESETS = {
    ("equil_prop", 3): Preset("adam", {**EP, "free_steps": 12, "nudged_steps": 4}, lr=0.0003),
    ("equil_prop", 5): Preset("adam", {**EP, "free_steps": 20, "nudged_steps": 6}, lr=0.0001),
    ("equil_prop", 8): Preset("adam", {**EP, "free_steps": 20, "nudged_steps": 9}, lr=0.0001),
    ("rfa", 5): Preset("sgd", lr=0.003),
    ("rfa", 8): Preset("sgd", lr=0.003),
    ("lra_e", 5): Preset("sgd", {"w_init": "orthogonal"}),
    ("lra_e", 8): Preset("sgd", {"w_init": "orthogonal"}),
}


def preset(algo: str, hidden_layers: int | None) -> Preset:
    """How a rule is trained at a depth; None for a network that has its own."""
    depths = [d for name, d in DEPTH_PRESETS if name == algo and d <= (hidden_layers or 0)]
    return DEPTH_PRESETS[algo, max(depths)] if depths else PRESETS[algo]
