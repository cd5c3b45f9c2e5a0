"""The cells beyond the paper: depth, more rules, networks, activations, attacks on the input.

docs/evidence/ says on what evidence rates and scales differ from the presets.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

from lrajax.runs.settings import SURROGATES
from paper import cells, probes, statements
from paper.cells import Cell, Scale

# What docs/protocol.md chose, a folder a task.
LEADERBOARD = pathlib.Path(__file__).resolve().parents[2] / "leaderboard"
FALLING = {"opt": "adam", "lr": 0.001, "schedule": "cosine"}
DECAYED = {"weight_decay": 0.1, **FALLING}
# They keep the norm of activities on the way up and of errors on the way down, at any depth.
DEEP = {"w_init": "orthogonal", "e_init": "unit_gain:0.1"}
DEEP_RATE = 0.003  # of 0.001, 0.003 and 0.01 the best on validation at 64 layers
ORTHOGONAL = {"w_init": "orthogonal", "e_init": "orthogonal"}
# Initialisers of the other rules at depth, and λ where the preset's is too large. Of sign-symmetric
# feedback E gives the size alone.
DEEP_OTHERS = {
    "backprop": {"w_init": "orthogonal"},
    "equil_prop": {},
    "rfa": ORTHOGONAL,
    "dfa": ORTHOGONAL,
    "dtp": ORTHOGONAL,
    "dtp_sigma": ORTHOGONAL,
    "rec_lra": {"lr": DEEP_RATE, **DEEP},
    "kolen_pollack": {"lr": 0.0003, **ORTHOGONAL},
    "sign_symmetric": {"lr": 0.0003, **ORTHOGONAL},
    "predictive_coding": {"w_init": "orthogonal"},
}
# rec-LRA at length: chosen on MNIST's validation images (docs/evidence/rules.md).
REC_LRA = {
    **FALLING,
    "weight_decay": 0.03,
    "w_init": "orthogonal",
    "e_init": "orthogonal:0.1",
    "gamma": 0.5,
}
# E starts small and decays as W does, so that it comes to Wᵀ (docs/evidence/layers.md).
CIFAR10_FEEDBACK = {"weight_decay": 0.3, "w_init": "glorot", "e_init": "glorot:0.1"}
CIFAR10_LRA_E = {"derivative": False, "beta": 0.01, **CIFAR10_FEEDBACK}
CIFAR10_KOLEN_POLLACK = {"decay": 0.0, **CIFAR10_FEEDBACK}  # that of the optimiser is enough
# λ of four from 0.001 to 0.008, with 10,000 images for training; decay, γ and V2 change little.
CIFAR10_REC_LRA = {"lr": 0.002, **CIFAR10_FEEDBACK}
# The best of eight trials of six epochs each: docs/evidence/searches/cifar10-vgg5/.
CIFAR10_RANDOM = {
    "lr": 0.000386,
    "weight_decay": 0.716,
    "w_init": "orthogonal:0.368",
    "e_init": "orthogonal:0.915",
}
CIFAR10_SEARCHED = {
    "rfa": CIFAR10_RANDOM,
    "dfa": CIFAR10_RANDOM,
    "sign_symmetric": {
        "lr": 0.000866,
        "weight_decay": 0.0258,
        "w_init": "orthogonal:0.638",
        "e_init": "orthogonal:0.112",
    },
}
CIFAR10 = {"dataset": "cifar10", "activation": "relu", **FALLING}
CROPPED = {"augment": ("flip", "crop"), **CIFAR10}
# The rules that networks beyond vgg5 at width 32 are shown with.
CIFAR10_RULES = {
    "backprop": {},
    "lra_e": CIFAR10_LRA_E,
    "kolen_pollack": CIFAR10_KOLEN_POLLACK,
    "sign_symmetric": CIFAR10_SEARCHED["sign_symmetric"],
    "dtp_sigma": {"activation": "tanh"},
}
NORMED = "paper.remedies:normed_vgg5"
# Networks and their widths.
OF_SIZES = (("vgg5", 32), ("resnet_small", 32), ("vgg7", 32), ("vgg5", 64))
FULL_SIZE = (("vgg5", 128), ("vgg9", 64), ("resnet18", 64))

UNITS_LRA_E = {"opt": "adam", "lr": 0.001, "w_init": "glorot"}
# Several sign layers do best where next to nothing flips, k winners with a small β, others with 1.
LRA_E_BETA = {("sign", 1): 0.6, ("sign", 3): 0.0003, ("kwta", 3): 0.03}
# Units that send a sign and keep a graded state, which is what has a target: rules, the state's
# activation, and how they train. DTP has its preset.
BINARY = {"network": "mlp_binary", "epochs": 60, "w_init": "glorot"}
SMALL = "gaussian:0.01"  # E then is what it has learned, (W - W at the start)ᵀ but for decay
BINARY_RULES = (
    ("lra_e", "tanh", {"derivative": False, "e_init": SMALL, **DECAYED}),
    ("backprop", "hard_tanh", DECAYED),
    ("backprop", "tanh", DECAYED),
    ("dtp", "tanh", {"epochs": 30, "seeds": 3}),
)
BINARY_CHANGES = {("lra_e", 1): {"beta": 0.01}}  # of these cells, by rule and depth


def depth(scale: Scale) -> Iterator[Cell]:
    """MLPs on MNIST: LRA-E with 8 to 64 hidden layers at length, every rule for three epochs."""

    def cell(name, algo, layers, seeds=None, **changes):
        flags = {"algo": algo, "dataset": "mnist", "hidden_layers": layers, **changes}
        return scale.cell("depth", name, seeds=seeds, probe=probes.ALIGNMENT, **flags)

    for version, own in (("v1", {}), ("v2", {"derivative": False})):
        yield cell(f"lra_e-8-{version}", "lra_e", 8, epochs=30, **own, **DECAYED, **DEEP)
    for layers in (16, 32, 64):
        yield cell(f"lra_e-{layers}", "lra_e", layers, epochs=20, lr=DEEP_RATE, **DEEP)
        for algo, changes in DEEP_OTHERS.items():
            yield cell(f"{algo}-{layers}", algo, layers, seeds=1, epochs=3, **changes)


def rules(scale: Scale) -> Iterator[Cell]:
    """The rules that the paper does not have, on MNIST."""
    for layers in (3, 8):
        for algo in ("kolen_pollack", "sign_symmetric", "predictive_coding", "rec_lra"):
            flags = {"algo": algo, "dataset": "mnist", "hidden_layers": layers, "epochs": 10}
            yield scale.cell("rules", f"{algo}-{layers}", seeds=3, **flags)


def rec_lra(scale: Scale) -> Iterator[Cell]:
    """rec-LRA at length on both of its publication's sets of grey images, 3 layers."""
    for dataset in ("mnist", "fashion_mnist"):
        flags = {"algo": "rec_lra", "dataset": dataset, "hidden_layers": 3, "epochs": 30}
        yield scale.cell("rec_lra", dataset, **flags, **REC_LRA)


def networks(scale: Scale) -> Iterator[Cell]:
    """Networks for images beside backprop, 32 residual layers beside 8, on Fashion-MNIST."""

    def cell(name, algo, **changes):
        flags = {"algo": algo, "dataset": "fashion_mnist", **changes}
        return scale.cell("networks", name, probe=probes.ALIGNMENT, **flags)

    # W and E move and decay alike, so that E becomes Wᵀ and each layer's V2 backprop but for scale:
    # by decay from a random E, or from next to none.
    decaying = {"e_init": "glorot", "weight_decay": 0.5}
    growing = {"e_init": SMALL, "weight_decay": 0.1}
    aligned = {"resnet_small": decaying, "lenet": growing, "locally_connected": growing}
    for network, aligning in aligned.items():
        common = {"network": network, "epochs": 10, "w_init": "glorot", **FALLING}
        yield cell(f"lra_e-{network}", "lra_e", derivative=False, **common, **aligning)
        yield cell(f"backprop-{network}", "backprop", weight_decay=0.1, **common)
    # 32 tanh in a row would squash what the skips carry; relu passes it. W and E add little to it:
    # a gain of 1/√depth keeps activities from growing; 2β = 1 keeps the errors' norm.
    resmlp = {"network": "resmlp", "activation": "relu", "epochs": 20, "schedule": "cosine"}
    for layers, lr, gain in ((8, 0.004, 0.2), (32, 0.001, 0.1)):
        inits = {"w_init": f"orthogonal:{gain}", "e_init": f"orthogonal:{gain}"}
        changes = {"hidden_layers": layers, "lr": lr, "beta": 0.5, **inits, **resmlp}
        yield cell(f"lra_e-resmlp-{layers}", "lra_e", **changes)


def tuned(scale: Scale) -> Iterator[Cell]:
    """Table 1's 100 epochs and split for what the protocol chose on MNIST, of twenty epochs."""
    for algo in ("backprop", "lra_e", "dtp_sigma"):
        chosen = json.loads((LEADERBOARD / "mnist-3" / algo / "preset.json").read_text())
        own = ("epochs", "valid_size", "augment", "standardize")  # the last two are empty
        flags = {name: value for name, value in chosen["settings"].items() if name not in own}
        yield scale.cell("tuned", algo, **flags)


def cifar10(scale: Scale) -> Iterator[Cell]:
    """Six epochs of convolutional networks on CIFAR-10, and up to thirty with crops too."""
    cell = functools.partial(scale.cell, "cifar10", probe=probes.ALIGNMENT)
    common = {**CIFAR10, "width": 32, "epochs": 6}
    flipped = {"augment": ("flip",), **common}
    for name, algo, flags in (
        ("backprop", "backprop", common),
        ("backprop-flip", "backprop", flipped),
        ("lra_e", "lra_e", {**CIFAR10_LRA_E, **flipped}),
    ):
        yield cell(name, algo=algo, network="vgg5", **flags)
    cropped = {**CROPPED, "width": 32, "epochs": 30}
    for algo in ("backprop", "kolen_pollack", "lra_e"):
        yield cell(f"{algo}-30", algo=algo, network="vgg5", **cropped, **CIFAR10_RULES[algo])
    for algo, found in CIFAR10_SEARCHED.items():
        settings = {"algo": algo, "network": "vgg5", **cropped, **found}
        yield cell(f"{algo}-30", **settings)
        short = {**settings, "epochs": 15}
        yield cell(f"{algo}-15", seeds=1, **short)
    for algo in ("backprop", "rfa", "dfa"):
        found = CIFAR10_SEARCHED.get(algo, {})
        normed = {"algo": algo, "network": NORMED, **cropped, "epochs": 15, **found}
        yield cell(f"{algo}-normed", seeds=1, **normed)
    # With relu it stays at chance; a step takes three times as long as backprop's.
    tanh = {**cropped, "network": "vgg5", "activation": "tanh", "epochs": 15}
    yield cell("dtp-15", seeds=1, algo="dtp", **tanh)
    residual = {**flipped, "network": "resnet_small", **CIFAR10_REC_LRA}
    yield cell("rec_lra", algo="rec_lra", **residual)


def cifar10_networks(scale: Scale) -> Iterator[Cell]:
    """Networks of several sizes with the settings that serve on vgg5, six epochs of one seed."""
    for (network, width), (algo, own) in itertools.product(OF_SIZES, CIFAR10_RULES.items()):
        how = {"seeds": 1, "probe": probes.ALIGNMENT, "algo": algo}
        flags = {**CROPPED, "network": network, "width": width, "epochs": 6, **own}
        yield scale.cell("cifar10_networks", f"{algo}-{network}-{width}", **how, **flags)


def cifar10_full(scale: Scale) -> Iterator[Cell]:
    """Networks of the size that others report on, 100 epochs, for an accelerator."""
    for (network, width), (algo, own) in itertools.product(FULL_SIZE, CIFAR10_RULES.items()):
        how = {"seeds": 3, "probe": probes.ALIGNMENT, "precision": "bfloat16", "algo": algo}
        flags = {**CROPPED, "network": network, "width": width, "epochs": 100, **own}
        yield scale.cell("cifar10_full", f"{algo}-{network}", **how, **flags)


def activations(scale: Scale) -> Iterator[Cell]:
    """Hidden units that are on or off, or compete, on Fashion-MNIST.

    LRA-E V2 asks for no derivative. Backprop, and DTP inside a layer, take a surrogate's slope
    where the units have none. The last cells' units send a sign and keep a graded state.
    """

    def cell(name, algo, layers, **changes):
        flags = {"algo": algo, "dataset": "fashion_mnist", "hidden_layers": layers, **changes}
        return scale.cell("activations", name, probe=probes.ALIGNMENT, **flags)

    units_and_depths = (("sign", 1), ("sign", 3), ("threshold", 3), ("kwta", 3), ("bernoulli", 3))
    for units, layers in units_and_depths:
        beta = LRA_E_BETA.get((units, layers), 1.0)
        sloped = {"activation": SURROGATES.get(units, units)}
        rules = {
            "lra_e": {"activation": units, "derivative": False, "beta": beta, **UNITS_LRA_E},
            "dtp": sloped,
            "backprop": {"opt": "adam", "lr": 0.0003, **sloped},
        }
        if layers == 1:  # deeper networks of LRA-E gain nothing by it
            rules["lra_e"] |= {"e_init": "glorot", **DECAYED}
            rules["backprop"] |= FALLING
        for algo, changes in rules.items():
            yield cell(f"{algo}-{units}-{layers}", algo, layers, epochs=10, **changes)
    for layers in (1, 3):
        for algo, state, training in BINARY_RULES:
            changes = {"activation": state, **BINARY, **training}
            changes |= BINARY_CHANGES.get((algo, layers), {})
            yield cell(f"{algo}-binary_{state}-{layers}", algo, layers, **changes)


def robustness(scale: Scale) -> Iterator[Cell]:
    """Networks that three rules trained on Fashion-MNIST, attacked afterwards (`probes`)."""
    for algo in ("backprop", "lra_e", "dtp_sigma"):
        flags = {"algo": algo, "dataset": "fashion_mnist", "hidden_layers": 3, "epochs": 20}
        yield scale.cell("robustness", algo, probe=probes.ATTACKS, **flags)


def precision(scale: Scale) -> Iterator[Cell]:
    """Products of bfloat16 operands beside float32 ones, on MNIST."""
    for algo in ("backprop", "lra_e", "dtp_sigma"):
        for kind, network in (("float32", "mlp"), ("bfloat16", "mlp_bfloat16")):
            flags = {"algo": algo, "dataset": "mnist", "hidden_layers": 3, "epochs": 20}
            yield scale.cell("precision", f"{algo}-{kind}", network=network, **flags)


TARGETS: dict[str, Callable[[Scale], Iterator[Cell]]] = {
    "depth": depth,
    "rules": rules,
    "rec_lra": rec_lra,
    "tuned": tuned,
    "networks": networks,
    "cifar10": cifar10,
    "cifar10_networks": cifar10_networks,
    "cifar10_full": cifar10_full,
    "activations": activations,
    "robustness": robustness,
    "precision": precision,
}
ALL_TARGETS = {**cells.TARGETS, **statements.TARGETS, **TARGETS}
