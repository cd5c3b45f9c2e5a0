"""The cells of the paper's tables, figures and claims: what to train, what the paper says."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lrajax.runs import presets
from lrajax.runs.settings import Settings
from paper import probes

DEPTHS = (3, 5, 8)
INITIALIZERS = ("orthogonal", "glorot", "gaussian:0.05")

TABLES = {"mnist": "table1", "fashion_mnist": "table2"}  # every rule at every depth, by data set

# Equilibrium propagation settles for long: fewer seeds.
SEEDS = {"equil_prop": 3}

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
      flags: what tells `train.py` these settings, but for the seeds.
      probe: what is measured beside the errors.
      precision: of matrix products, where a device has several.
    """

    target: str
    name: str
    settings: Settings
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    probe: probes.Probe = probes.NOTHING
    precision: str = "float32"

    @property
    def command(self) -> str:
        """The command that trains the cell's seeds, in one program."""
        words = [f"--{name}={spelled(value)}" for name, value in self.flags.items()]
        seeds = len(self.settings.seeds)
        words += [f"--num_seeds={seeds}"] * (seeds > 1)
        words += [f"--precision={self.precision}"] * (self.precision != "float32")
        return " ".join(("python experiments/train.py", *words, "--data_dir=FOLDER"))


def spelled(value: Any) -> str:
    """A flag's value as the command line has it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the reproduction is: the paper's size, or `--quick`.

    Attributes:
      seeds: of every cell.
      epochs: at most.
      depths: of the tables; figure 3 shows the last two.
      smaller: settings that stand in for every cell's own.
    """

    seeds: tuple[int, ...]
    epochs: int = 100
    depths: tuple[int, ...] = DEPTHS
    smaller: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def cell(
        self,
        target: str,
        name: str,
        *,
        seeds: int | None = None,
        probe: probes.Probe = probes.NOTHING,
        precision: str = "float32",
        **flags: Any,
    ) -> Cell:
        """The cell that the flags describe, with so many seeds at most."""
        settings = presets.resolve(**flags)
        settings = dataclasses.replace(
            settings,
            seeds=self.seeds[:seeds],
            epochs=min(settings.epochs, self.epochs),
            **self.smaller,
        )
        return Cell(target, name, settings, flags, probe, precision)


def table1(scale: Scale, target: str = "table1", dataset: str = "mnist") -> Iterator[Cell]:
    """Every rule at every depth on MNIST."""
    for depth in scale.depths:
        for algo in PAPER[dataset]:
            flags = {"algo": algo, "dataset": dataset, "hidden_layers": depth}
            yield scale.cell(target, f"{algo}-{depth}", seeds=SEEDS.get(algo), **flags)
        for name, (algo, changes) in CONTROLS.items():
            flags = {"algo": algo, "dataset": dataset, "hidden_layers": depth, **changes}
            yield scale.cell(target, f"{name}-{depth}", **flags)


def table2(scale: Scale) -> Iterator[Cell]:
    """Every rule at every depth on Fashion-MNIST."""
    return table1(scale, "table2", "fashion_mnist")


def table3(scale: Scale) -> Iterator[Cell]:
    """LRA-E under three optimisers on both sets; under SGD it is a cell of Table 1 or 2."""
    for dataset, optimizers in PAPER_OPTIMIZERS.items():
        for opt in optimizers:
            target, name = optimizer_cell(dataset, opt)
            own = {} if opt == "sgd" else {"opt": opt}
            yield scale.cell(target, name, algo="lra_e", dataset=dataset, hidden_layers=3, **own)


def optimizer_cell(dataset: str, opt: str) -> tuple[str, str]:
    """Target and name of the cell that Table 3 shows for a data set and an optimiser."""
    if opt == "sgd":
        return TABLES[dataset], "lra_e-3"
    return "table3", f"{dataset}-{opt}"


def figure1(scale: Scale) -> Iterator[Cell]:
    """Angles to backprop and total discrepancy, 3 layers on Fashion-MNIST, 20 epochs of SGD."""
    common = {"dataset": "fashion_mnist", "hidden_layers": 3, "opt": "sgd", "epochs": 20}
    slower = {"lr": 0.003}
    for name, algo, own in (
        ("lra_e", "lra_e", {}),
        ("dfa", "dfa", {}),
        ("dtp_sigma", "dtp_sigma", slower),
        ("dtp_sigma_corrupted", "dtp_sigma", {**slower, **CORRUPTED}),
    ):
        yield scale.cell("figure1", name, probe=probes.ANGLES, algo=algo, **common, **own)


def figure2(scale: Scale) -> Iterator[Cell]:
    """The top hidden layer of Table 2's networks of 5 layers."""
    common = {"dataset": "fashion_mnist", "hidden_layers": 5}
    for name in ("dfa", "equil_prop", "dtp_sigma", "dtp_sigma_corrupted", "lra_e"):
        algo, own = CONTROLS.get(name, (name, {}))
        yield scale.cell("figure2", name, probe=probes.PICTURE, algo=algo, **common, **own)


def figure3(scale: Scale, target: str = "figure3", dataset: str = "mnist") -> Iterator[Cell]:
    """DTP, DTP-σ and controls, 5 and 8 layers, from three initialisations, on MNIST, 20 epochs."""
    for depth in scale.depths[-2:]:
        for name in ("dtp", "dtp_quiet", "dtp_sigma", "dtp_sigma_corrupted"):
            algo, changes = CONTROLS.get(name, (name, {}))
            for init in INITIALIZERS:
                flags = {"algo": algo, "dataset": dataset, "hidden_layers": depth, "epochs": 20}
                name_ = f"{name}-{depth}-{init.partition(':')[0]}"
                yield scale.cell(target, name_, w_init=init, e_init=init, **flags, **changes)


def figure3_fashion(scale: Scale) -> Iterator[Cell]:
    """The same on Fashion-MNIST, without the reading of equation 11 that hardly adapts."""
    every = figure3(scale, "figure3_fashion", "fashion_mnist")
    return (cell for cell in every if "corrupted" not in cell.name)


def claims(scale: Scale) -> Iterator[Cell]:
    """LRA-E with and without derivatives, with either local loss: 3 layers on MNIST, 20 epochs."""
    variants: dict[str, dict[str, Any]] = {
        "gaussian": {},
        "cauchy": {"local_loss": "cauchy"},
        "gaussian-beta1": {"beta": 1.0},
        "cauchy-beta1": {"beta": 1.0, "local_loss": "cauchy"},
        "without_derivatives": {"derivative": False},
    }
    for name, changes in variants.items():
        flags = {"algo": "lra_e", "dataset": "mnist", "hidden_layers": 3, "epochs": 20, **changes}
        yield scale.cell("claims", f"lra_e-{name}", probe=probes.SPARSITY, **flags)


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
