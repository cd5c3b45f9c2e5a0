"""The cells beyond the paper: depth, more rules, attacks on the input."""

import dataclasses
from collections.abc import Callable, Iterator

from cells import Cell, Scale, fewer

# They keep the norm of activities on the way up and of errors on the way down, at any depth.
DEEP = {"w_init": "orthogonal", "e_init": "unit_gain:0.1"}
DEEP_RATE = 0.003  # of 0.001, 0.003 and 0.01 the best on validation at 64 layers


def depth(scale: Scale) -> Iterator[Cell]:
    """MLPs of 8 to 64 hidden layers on MNIST."""
    yield Cell("depth", "lra_e-8", scale.settings("lra_e", "mnist", 8, epochs=60, **DEEP))
    for layers in (16, 32, 64):
        settings = scale.settings("lra_e", "mnist", layers, epochs=15, **DEEP)
        yield Cell("depth", f"lra_e-{layers}", dataclasses.replace(settings, lr=DEEP_RATE))
        for algo in ("backprop", "rfa", "dfa", "dtp_sigma"):
            settings = scale.settings(algo, "mnist", layers, epochs=10, w_init="orthogonal")
            yield Cell("depth", f"{algo}-{layers}", fewer(settings, 1))


def rules(scale: Scale) -> Iterator[Cell]:
    """The rules that the paper does not have, on MNIST."""
    for layers in (3, 8):
        for algo in ("kolen_pollack", "sign_symmetric", "predictive_coding", "rec_lra"):
            settings = scale.settings(algo, "mnist", layers, epochs=20)
            yield Cell("rules", f"{algo}-{layers}", fewer(settings, 3))


def robustness(scale: Scale) -> Iterator[Cell]:
    """Networks that three rules trained on Fashion-MNIST, attacked afterwards (`probes`)."""
    for algo in ("backprop", "lra_e", "dtp_sigma"):
        settings = scale.settings(algo, "fashion_mnist", 3, epochs=20)
        yield Cell("robustness", algo, fewer(settings, 3))


TARGETS: dict[str, Callable[[Scale], Iterator[Cell]]] = {
    "depth": depth,
    "rules": rules,
    "robustness": robustness,
}
