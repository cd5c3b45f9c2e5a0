"""What a run takes for (rule, network and depth, optimiser, data set): one table, one resolver.

Where a setting differs from the paper, the paper is silent or does not work as printed;
docs/evidence/ gives the evidence, a page a rule.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from lrajax.checks import one_of
from lrajax.runs import named
from lrajax.runs.settings import (
    OPTIMIZERS,
    Settings,
    check_owner,
    defaults,
    network_sizes,
)


class Case(NamedTuple):
    """Which runs a line of the table speaks of.

    Attributes:
      algo: the rule; None for every rule.
      hidden_layers: the fewest; None for any number, and for networks that have their own.
      opt: the optimiser; None for every one.
      dataset: the data set; None for every one.
      images: whether only networks for images are meant.
    """

    algo: str | None = None
    hidden_layers: int | None = None
    opt: str | None = None
    dataset: str | None = None
    images: bool = False

    def fits(self, run: Mapping[str, Any]) -> bool:
        """Whether a run, so far as its settings are known, is such a one."""
        least = self.hidden_layers
        deep = least is None or (run["hidden_layers"] or 0) >= least
        names = ("algo", "opt", "dataset")
        if self.images and not named.for_images(run["network"]):
            return False
        return deep and all(getattr(self, name) in (None, run.get(name)) for name in names)


# Settings and hyperparameters by case; of the cases that fit a run a later one has the last word.
# What no case gives is the default of `Settings` or of the rule's factory.
TABLE: dict[Case, Mapping[str, Any]] = {
    Case(): {"opt": "sgd", "activation": "tanh", "batch_size": 50, "epochs": 100, "seeds": (0,)},
    # The paper's λ; the rules' own follow.
    Case(opt="sgd"): {"lr": 0.01},
    Case(opt="adam"): {"lr": 0.001},
    Case(opt="rmsprop"): {"lr": 0.001},
    Case(opt="normalized_sgd"): {"lr": 0.01},
    Case("backprop"): {"reduction": "mean"},
    Case("rfa", 5, "sgd"): {"lr": 0.003},
    Case("rfa", 8, "sgd", "fashion_mnist"): {"lr": 0.001},
    # Equilibrium propagation a layer after another, under weak feedback: few sweeps train it. What
    # the free phase has still to settle drops out of a difference of two nudges.
    Case("equil_prop", 3): {
        "opt": "adam",
        "order": "sequential",
        "feedback": 0.3,
        "step_size": 1.0,
        "nudge": "centred",
        "free_steps": 3,
        "nudged_steps": 1,
        "low": -1.0,
        "w_init": "orthogonal",
        "epochs": 30,
    },
    Case("equil_prop", 3, "adam"): {"lr": 0.0003},
    Case("equil_prop", 5, "adam"): {"lr": 0.0001},
    Case("dtp"): {"opt": "rmsprop"},
    Case("dtp_sigma"): {"opt": "rmsprop"},
    Case("dtp_sigma", opt="rmsprop"): {"lr": 0.0003},
    Case("lra_e", opt="adam"): {"lr": 0.0003},
    Case("lra_e", 5): {"w_init": "orthogonal"},
    # Kernels have fewer inputs than the paper's layers, and want larger weights than its scheme's.
    Case("lra_e", images=True): {"w_init": "fan_in"},
    Case("lra_e", opt="adam", images=True): {"lr": 0.001},
    Case("lra_e", opt="adam", dataset="digits", images=True): {"lr": 0.003},
    Case("rec_lra", images=True): {"w_init": "fan_in"},
    Case("kolen_pollack"): {"opt": "rmsprop"},
    Case("sign_symmetric"): {"opt": "rmsprop"},
    Case("predictive_coding"): {"opt": "adam"},
    Case("weight_mirror"): {"opt": "rmsprop"},
    Case("direct_kolen_pollack"): {"opt": "rmsprop"},
    Case("dual_prop"): {"reduction": "mean"},
}


def resolve(algo: str, **given: Any) -> Settings:
    """The settings of a run: what is given, else what the table says, else the defaults.

    Args:
      algo: see `Settings`.
      **given: fields of `Settings` but for `hyperparameters`, and hyperparameters of the rule.

    Raises:
      ValueError: an unknown rule, optimiser or network, or a hyperparameter of another rule.
        Whether the rest can be run says `Settings.check`.
    """
    named.rule(algo)
    known = {"network": "mlp", "dataset": "digits", "algo": algo, **given}
    known = {**network_sizes(known["network"]), **known}
    opt = str(given.get("opt", _said(known).get("opt")))
    one_of("opt", opt, OPTIMIZERS)
    known = {**_said({**known, "opt": opt}), **known}
    fields = {field.name for field in dataclasses.fields(Settings)}
    arguments = {name: value for name, value in known.items() if name not in fields}
    for name in arguments:
        check_owner(algo, name)
    chosen = {name: value for name, value in known.items() if name in fields}
    return Settings(**chosen, hyperparameters={**defaults(algo), **arguments})


def _said(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of a run, so far as its settings are known."""
    lines = (line for case, line in TABLE.items() if case.fits(run))
    return {name: value for line in lines for name, value in line.items()}
