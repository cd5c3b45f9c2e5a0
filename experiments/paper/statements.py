"""Short cells for what the paper says in passing: one a statement, as small as shows it.

They are not the tables: seeds and epochs are few, and a difference counts if it exceeds the spread.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from paper import cells, probes
from paper.cells import Cell, Scale

BETAS = (0.01, 0.03, 0.1, 0.3, 1.0)
GAMMAS = (0.0, 0.5, 0.9)  # beside the default, 1
CAUCHY_BETAS = (0.2, 0.4, 0.6)  # where both losses learn
WIDTHS = (240, 256, 512)
# Of W under a sine: in the upper two layers a sixth to a half of the units start past its peaks,
# where the usual 0.05 keeps all where it rises. With 0.3 neither version learns.
SINE_SCALES = (0.15, 0.2)
FEEDBACK_INITS = ("glorot", "orthogonal", "gaussian:0.05")


def steps(scale: Scale) -> Iterator[Cell]:
    """Figure 1 within the first epochs, with both readings of the scale of E and of equation 11."""
    common = {"dataset": "fashion_mnist", "hidden_layers": 3, "opt": "sgd", "epochs": 3}
    for name, algo, own in (
        ("lra_e", "lra_e", {}),
        ("lra_e-small_e", "lra_e", {"e_init": "gaussian:0.05"}),
        ("dfa", "dfa", {}),
        ("dtp_sigma", "dtp_sigma", {"lr": 0.003}),
    ):
        flags = {"algo": algo, **common, **own}
        yield scale.cell("steps", name, probe=probes.STEPS, **flags)


def sigma(scale: Scale) -> Iterator[Cell]:
    """σ of every layer of 8 over the first epoch, under both readings of equation 11."""
    common = {"algo": "dtp_sigma", "dataset": "mnist", "hidden_layers": 8, "epochs": 1}
    for name, own in (("target", {}), ("corrupted", cells.CORRUPTED)):
        yield scale.cell("sigma", name, probe=probes.STEPS, **common, **own)


def digits(scale: Scale) -> Iterator[Cell]:
    """Sensitivity and negative controls on the digits, 40 epochs, 3 layers."""

    def cell(name: str, algo: str = "lra_e", **changes: Any) -> Cell:
        flags = {"algo": algo, "dataset": "digits", "hidden_layers": 3, "epochs": 40, **changes}
        return scale.cell("digits", name, **flags)

    for beta in BETAS:
        yield cell(f"beta-{beta:g}", beta=beta)
    for gamma in GAMMAS:
        yield cell(f"gamma-{gamma:g}", gamma=gamma)
    for derivative in (True, False):
        version = "v1" if derivative else "v2"
        yield cell(f"tanh-{version}", derivative=derivative)
        for scale_ in SINE_SCALES:
            changes = {"activation": "sine", "w_init": f"gaussian:{scale_}"}
            yield cell(f"sine_{scale_}-{version}", derivative=derivative, **changes)
    for algo in ("rfa", "dfa"):
        for init in FEEDBACK_INITS:
            inits = {"w_init": init, "e_init": init}
            yield cell(f"{algo}-{init.partition(':')[0]}", algo, **inits)
    for name, probe in (("literal", probes.LITERAL), ("greedy", probes.GREEDY)):
        yield dataclasses.replace(cell(name), probe=probe)
    for opt, lr in (("sgd", 0.01), ("sgd", 0.003), ("sgd", 0.001), ("rmsprop", 0.001)):
        yield cell(f"dtp-{opt}-{lr:g}", "dtp", opt=opt, lr=lr)


def cauchy(scale: Scale) -> Iterator[Cell]:
    """Sparsity under either local loss where both learn: 3 layers on MNIST, 5 epochs."""
    common = {"algo": "lra_e", "dataset": "mnist", "hidden_layers": 3, "epochs": 5}
    for beta in CAUCHY_BETAS:
        for loss in ("gaussian", "cauchy"):
            flags = {**common, "beta": beta, "local_loss": loss}
            yield scale.cell("cauchy", f"{loss}-{beta:g}", probe=probes.SPARSITY, **flags)


def widths(scale: Scale) -> Iterator[Cell]:
    """DTP with 7 hidden layers of several widths on MNIST, 3 epochs."""
    common = {"algo": "dtp", "dataset": "mnist", "hidden_layers": 7, "epochs": 3}
    for width in WIDTHS:
        yield scale.cell("widths", f"dtp-{width}", width=width, **common)


# Beside the sweeps of equilibrium propagation's preset four times as many, and the publication's
# energy, whose layers drive each other as strongly down as up.
LONGER = {"free_steps": 12, "nudged_steps": 4}
STRONG = {
    "feedback": 1.0,
    "free_steps": 50,
    "nudged_steps": 10,
    "low": 0.0,
    "w_init": "gaussian:0.03",
}
# Free sweeps from the preset's on, with a third as many nudged: where more of them change nothing
# the states have settled.
SWEEPS = (3, 12, 48, 120)
# Predictive coding of many residual layers. The errors of all of them displace the uppermost, so
# β is small; W adds little to the skips, as in the networks' cells.
DEEP_CODING = {
    "algo": "predictive_coding",
    "network": "resmlp",
    "width": 128,
    "activation": "relu",
    "opt": "adam",
    "lr": 0.0003,
    "coordinates": "errors",
    "steps": 2,
    "step_size": 0.5,
    "beta": 0.00001,
    "epochs": 3,
}
DEEP_CODING_GAINS = {64: 0.1, 128: 0.07}


def settling(scale: Scale) -> Iterator[Cell]:
    """Equilibrium propagation with longer phases or γ = 1, and deep predictive coding."""

    def cell(name, layers, dataset, seeds=None, epochs=3, **changes):
        flags = {"algo": "equil_prop", "dataset": dataset, "hidden_layers": layers, **changes}
        return scale.cell("settling", f"{name}-{layers}", seeds=seeds, epochs=epochs, **flags)

    for layers in scale.depths:
        for dataset, suffix in (("mnist", ""), ("fashion_mnist", "_fashion")):
            yield cell(f"preset{suffix}", layers, dataset, seeds=3)
            yield cell(f"longer{suffix}", layers, dataset, seeds=3, **LONGER)
        for free in SWEEPS:
            phases = {"free_steps": free, "nudged_steps": free // 3}
            yield cell(f"digits_{free}", layers, "digits", epochs=20, lr=0.0001, **phases)
    for layers in (scale.depths[0], scale.depths[-1]):
        yield cell("strong", layers, "mnist", seeds=1, **STRONG)
    for layers, gain in DEEP_CODING_GAINS.items():
        flags = {"hidden_layers": layers, "w_init": f"orthogonal:{gain}", **DEEP_CODING}
        name = f"predictive_coding-{layers}"
        yield scale.cell("settling", name, seeds=1, dataset="mnist", **flags)


TARGETS: dict[str, Callable[[Scale], Iterator[Cell]]] = {
    "steps": steps,
    "sigma": sigma,
    "digits": digits,
    "cauchy": cauchy,
    "widths": widths,
    "settling": settling,
}
