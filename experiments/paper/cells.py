"""The cells of the paper's tables, figures and claims: what to train, what the paper says."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from lrajax.runs import presets
from lrajax.runs import settings as runs
from paper import probes

DEPTHS = (3, 5, 8)
INITIALIZERS = ("orthogonal", "glorot", "gaussian:0.05")

TABLES = {"mnist": "table1", "fashion_mnist": "table2"}  # every rule at every depth, by data set

# How cells of Tables 1 and 2 differ from the presets, by set, rule and depth: seeds and epochs at
# most, where a seed of 100 epochs would take hours on a CPU; λ, where the preset's is too large for
# the set.
CHANGES = {
    ("mnist", "equil_prop", 3): {"seeds": 3, "epochs": 20},
    ("mnist", "equil_prop", 5): {"seeds": 3, "epochs": 10},
    ("mnist", "equil_prop", 8): {"seeds": 3, "epochs": 5},
    ("fashion_mnist", "equil_prop", 3): {"seeds": 3, "lr": 0.00003},
    ("fashion_mnist", "equil_prop", 5): {"seeds": 3, "epochs": 30, "lr": 0.00003},
    ("fashion_mnist", "equil_prop", 8): {"seeds": 3, "epochs": 5},
    ("fashion_mnist", "rfa", 8): {"lr": 0.001},
}

# The reading of equation 11 under which σ hardly changes; RESULTS.md has both.
CORRUPTED = {"sigma_loss": "corrupted", "over_units": "mean"}
# Rows beside the paper's in Tables 1 and 2 and Figure 3: the rule, and how it differs.
CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "dtp_sigma_corrupted": ("dtp_sigma", CORRUPTED),
    "dtp_quiet": ("dtp", {"noise": 0.01, "lr": 0.0003}),  # σ and λ of DTP-σ
    "backprop_tuned": ("backprop", {"lr": 0.1}),
}

# Tables 1 and 2: (train, test) error in % at 3, 5 and 8 hidden layers.
PAPER = {
    "mnist": {
        "backprop": ((1.78, 3.02), (2.4, 2.98), (2.91, 3.02)),
        "equil_prop": ((3.82, 4.99), (7.59, 9.21), (89.96, 90.91)),
        "rfa": ((3.01, 3.13), (2.99, 3.4), (3.59, 3.76)),
        "dfa": ((4.07, 4.17), (3.71, 3.88), (3.81, 3.85)),
        "dtp": ((0.74, 2.8), (4.408, 4.94), (10.89, 10.1)),
        "dtp_sigma": ((0.00, 2.38), (0.00, 2.57), (0.00, 2.56)),
        "lra_e": ((0.86, 2.20), (0.16, 1.97), (0.08, 2.55)),
    },
    "fashion_mnist": {
        "backprop": ((12.08, 14.89), (12.1, 12.98), (11.55, 13.21)),
        "equil_prop": ((14.72, 14.01), (16.56, 20.97), (90.12, 89.78)),
        "rfa": ((11.99, 12.74), (12.09, 12.89), (12.03, 12.71)),
        "dfa": ((13.04, 13.41), (12.58, 13.09), (11.59, 13.01)),
        "dtp": ((13.6, 15.03), (21.078, 19.66), (21.838, 17.58)),
        "dtp_sigma": ((7.5, 13.95), (6.34, 12.99), (6.5, 13.01)),
        "lra_e": ((11.25, 13.51), (9.84, 12.31), (9.74, 12.69)),
    },
}
# Table 3: (train, test) error in % of LRA-E at 3 hidden layers.
PAPER_OPTIMIZERS = {
    "mnist": {"sgd": (0.86, 2.20), "adam": (0.00, 1.75), "rmsprop": (0.69, 2.02)},
    "fashion_mnist": {"sgd": (11.25, 13.51), "adam": (5.38, 12.42), "rmsprop": (12.67, 14.90)},
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of a table or figure.

    Attributes:
      target: table1, ..., figure3.
      name: of the file that keeps its result.
      settings: of the runs.
      probe: what is measured beside the errors.
    """

    target: str
    name: str
    settings: runs.Settings
    probe: probes.Probe = probes.NOTHING


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the reproduction is: the paper's size, or `--quick`.

    Attributes:
      seeds: of every cell.
      epochs: at most.
      depths: of the tables; figure 3 shows the last two.
      width: of hidden layers.
      dataset: stands in for the paper's; None for the paper's own.
    """

    seeds: tuple[int, ...]
    epochs: int = 100
    depths: tuple[int, ...] = DEPTHS
    width: int = 256
    dataset: str | None = None

    def settings(
        self,
        algo: str,
        dataset: str,
        hidden_layers: int | None,
        *,
        seeds: int | None = None,
        epochs: int = 100,
        opt: str | None = None,
        lr: float | None = None,
        network: str = "mlp",
        width: int | None = None,
        activation: str = "tanh",
        schedule: str = "constant",
        weight_decay: float = 0.0,
        **hyperparameters: Any,
    ) -> runs.Settings:
        """The preset of a rule at a depth, but for what is given; so many seeds at most."""
        preset = presets.preset(algo, hidden_layers)
        opt = opt or preset.opt
        return runs.Settings(
            algo=algo,
            opt=opt,
            lr=lr or preset.rate(opt),
            dataset=self.dataset or dataset,
            hidden_layers=hidden_layers,
            width=width or self.width,
            activation=activation,
            batch_size=50,
            epochs=min(epochs, self.epochs),
            seeds=self.seeds[:seeds],
            hyperparameters={**runs.defaults(algo), **preset.hyperparameters, **hyperparameters},
            network=network,
            schedule=schedule,
            weight_decay=weight_decay,
        )


def table1(scale: Scale, target: str = "table1", dataset: str = "mnist") -> Iterator[Cell]:
    """Every rule at every depth on MNIST."""
    for depth in scale.depths:
        for algo in PAPER[dataset]:
            settings = scale.settings(
                algo, dataset, depth, **CHANGES.get((dataset, algo, depth), {})
            )
            yield Cell(target, f"{algo}-{depth}", settings)
        for name, (algo, changes) in CONTROLS.items():
            settings = scale.settings(algo, dataset, depth, **changes)
            yield Cell(target, f"{name}-{depth}", settings)


def table2(scale: Scale) -> Iterator[Cell]:
    """Every rule at every depth on Fashion-MNIST."""
    return table1(scale, "table2", "fashion_mnist")


def table3(scale: Scale) -> Iterator[Cell]:
    """LRA-E under three optimisers on both sets; under SGD it is a cell of Table 1 or 2."""
    for dataset, optimizers in PAPER_OPTIMIZERS.items():
        for opt in optimizers:
            settings = scale.settings("lra_e", dataset, 3, opt=opt, lr=presets.LRA_E_RATES[opt])
            yield Cell(*optimizer_cell(dataset, opt), settings)


def optimizer_cell(dataset: str, opt: str) -> tuple[str, str]:
    """Target and name of the cell that Table 3 shows for a data set and an optimiser."""
    if opt == "sgd":
        return TABLES[dataset], "lra_e-3"
    return "table3", f"{dataset}-{opt}"


def figure1(scale: Scale) -> Iterator[Cell]:
    """Angles to backprop and total discrepancy, 3 layers on Fashion-MNIST, 20 epochs of SGD."""
    slower = {"lr": 0.003}
    for name, algo, changes in (
        ("lra_e", "lra_e", {}),
        ("dfa", "dfa", {}),
        ("dtp_sigma", "dtp_sigma", slower),
        ("dtp_sigma_corrupted", "dtp_sigma", {**slower, **CORRUPTED}),
    ):
        settings = scale.settings(algo, "fashion_mnist", 3, epochs=20, opt="sgd", **changes)
        yield Cell("figure1", name, settings, probes.ANGLES)


def figure2(scale: Scale) -> Iterator[Cell]:
    """The top hidden layer of 5-layer networks on Fashion-MNIST."""
    for name in ("dfa", "equil_prop", "dtp_sigma", "dtp_sigma_corrupted", "lra_e"):
        algo, changes = CONTROLS.get(name, (name, {}))
        settings = scale.settings(algo, "fashion_mnist", 5, seeds=1, epochs=10, **changes)
        yield Cell("figure2", name, settings, probes.PICTURE)


def figure3(scale: Scale, target: str = "figure3", dataset: str = "mnist") -> Iterator[Cell]:
    """DTP, DTP-σ and controls, 5 and 8 layers, from three initialisations, on MNIST, 20 epochs."""
    for depth in scale.depths[-2:]:
        for name in ("dtp", "dtp_quiet", "dtp_sigma", "dtp_sigma_corrupted"):
            algo, changes = CONTROLS.get(name, (name, {}))
            for init in INITIALIZERS:
                inits = {"w_init": init, "e_init": init}
                settings = scale.settings(algo, dataset, depth, epochs=20, **changes, **inits)
                yield Cell(target, f"{name}-{depth}-{init.partition(':')[0]}", settings)


def figure3_fashion(scale: Scale) -> Iterator[Cell]:
    """The same on Fashion-MNIST."""
    return figure3(scale, "figure3_fashion", "fashion_mnist")


def claims(scale: Scale) -> Iterator[Cell]:
    """LRA-E with and without derivatives, with either local loss: 3 layers on MNIST, 20 epochs."""
    variants = {
        "gaussian": {},
        "cauchy": {"local_loss": "cauchy"},
        "gaussian-beta1": {"beta": 1.0},
        "cauchy-beta1": {"beta": 1.0, "local_loss": "cauchy"},
        "without_derivatives": {"derivative": False},
    }
    for name, changes in variants.items():
        settings = scale.settings("lra_e", "mnist", 3, epochs=20, **changes)
        yield Cell("claims", f"lra_e-{name}", settings, probes.SPARSITY)


TARGETS: dict[str, Callable[[Scale], Iterator[Cell]]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "figure1": figure1,
    "figure2": figure2,
    "figure3": figure3,
    "figure3_fashion": figure3_fashion,
    "claims": claims,
}
