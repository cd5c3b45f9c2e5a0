"""A step of relaxation in equilibrium propagation, against Laborieux-Axel/Equilibrium-Propagation.

Their class `P_MLP` is taken out of `model_utils.py`; a step is a pass of the loop in its `forward`.
"""

import itertools
import pathlib

import jax
import numpy as np
import peers
import roofline
import timing
import workload
from report import Bound, Options, Section, Table

import lrajax

SIZES = ((784, 500, 10), (784, 256, 256, 256, 10))
FASTER, REACHED = 5.0, 70.0
HOW = (
    "give a clone of https://github.com/Laborieux-Axel/Equilibrium-Propagation by "
    "--ep_repository=FOLDER"
)
NOTE = (
    "Free phase, batch 50. What differs: theirs (eager PyTorch) takes the force by autograd from "
    "the primitive function Φ, replaces each state by ρ(force), here ρ = hard sigmoid, and "
    "multiplies the input by the first weights in every step; ours takes an Euler step towards the "
    "force, clips to [0, 1], and computes the drive of the clamped input once a phase. The "
    "roofline is the products of our step alone, as in section roofline."
)


def measure(options: Options) -> Section:
    """Runs the section."""
    folder = options.ep_repository
    path = pathlib.Path(folder) / "model_utils.py" if folder else None
    model_class = peers.model_of("--ep_repository", path, HOW, "P_MLP", their_names)
    rows = [row_of(model_class, layer_sizes, options) for layer_sizes in SIZES]
    return Section([Table("equil_prop", rows, NOTE)], list(map(bound_of, rows)))


def bound_of(row: dict) -> Bound:
    """Five times as fast, or near the roofline."""
    faster, reached = row["theirs over ours"], row["of roofline (%)"]
    return Bound(
        f"relaxation step of {row['network']} ≥ {FASTER:g} × as fast as the public one, or at "
        f"≥ {REACHED:g} % of the roofline",
        f"{faster.median:.3g} ×, {reached.median:.3g} %",
        faster.median >= FASTER or reached.median >= REACHED,
    )


def their_names() -> dict:
    """The names that their file imports."""
    import torch

    return {"torch": torch, "F": torch.nn.functional}


def products_of(layer_sizes: tuple[int, ...]) -> list[roofline.Product]:
    """The products of our relaxation step: up and down between all layers but the input."""
    pairs = list(itertools.pairwise(layer_sizes[1:]))
    return [roofline.forward(*pair) for pair in pairs] + [roofline.backward(*p) for p in pairs]


def row_of(model_class: type, layer_sizes: tuple[int, ...], options: Options) -> dict:
    """Times of both on one network, interleaved."""
    count = 50 if options.quick else 300
    products = products_of(layer_sizes)
    calls = {product: roofline.repeated([product], count) for product in set(products)}
    calls["ours"] = our_phase(layer_sizes, count)
    calls["theirs"] = their_phase(model_class, layer_sizes, count)
    threads = peers.choose_threads(calls["theirs"])
    seconds = timing.interleaved(calls, options.repeats)
    alone = sum(seconds[product] for product in products)
    return {
        "network": "-".join(map(str, layer_sizes)),
        "our step (µs)": timing.spread(seconds["ours"], 1e6 / count),
        "their step (µs)": timing.spread(seconds["theirs"], 1e6 / count),
        "torch threads": threads,
        "theirs over ours": timing.ratio(seconds["theirs"], seconds["ours"]),
        "products (µs)": timing.spread(alone, 1e6 / count),
        "of roofline (%)": timing.ratio(alone, seconds["ours"], 100),
    }


def our_phase(layer_sizes: tuple[int, ...], count: int):
    """A call of a free phase of `count` steps, which is what `predict` runs."""
    algo = lrajax.equil_prop(lrajax.mlp(layer_sizes), free_steps=count)
    params = algo.init(jax.random.key(0))
    x = workload.random_batches(1).x[0]
    compiled = jax.jit(algo.predict).lower(params, x).compile()
    return lambda: jax.block_until_ready(compiled(params, x))


def their_phase(model_class: type, layer_sizes: tuple[int, ...], count: int):
    """A call of their free phase."""
    import torch
    from torch.nn import functional

    def hard_sigmoid(a):
        return functional.hardtanh(a, 0, 1)

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    model = model_class(layer_sizes, activation=hard_sigmoid).to(device)
    batch = workload.random_batches(1)
    x = torch.tensor(np.asarray(batch.x[0]), device=device)
    y = torch.tensor(np.asarray(batch.y[0]).argmax(axis=1), device=device)

    def call():
        model(x, y, model.init_neurons(len(x), device), count)
        if device == "cuda":
            torch.cuda.synchronize()

    return call
