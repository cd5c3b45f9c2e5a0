"""LRA-E, DFA and backprop as one writes them in PyTorch, timed beside lrajax's.

Before it is timed, every rule must give the parameters that lrajax's gives after a few steps from
the same weights over the same mini-batches.
"""

import itertools
from collections.abc import Callable

import jax
import numpy as np
import peers
import timing
import workload
from report import Bound, Options, Section, Skipped, Table, at_least
from workload import LEARNING_RATE

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None

BETA = 0.1
NOTE = (
    "Eager PyTorch, `nn.Linear` layers under `torch.optim.SGD`, a Python loop over mini-batches on "
    "the device, one thread or PyTorch's own number of them, whichever is faster; backprop through "
    "autograd, the others without it. Both libraries start from the same weights and were checked "
    "to reach the same parameters. The quotient, how many times as fast lrajax is, was taken round "
    "by round."
)
LIMIT, LIMITED_DEPTHS = 2.0, (3, 8)


def measure(options: Options) -> Section:
    """Runs the section."""
    if torch is None:
        raise Skipped("PyTorch is not installed: pip install torch")
    depths = workload.DEPTHS[:1] if options.quick else workload.DEPTHS
    rows, bounds = [], []
    for device, depth in itertools.product(torch_devices(), depths):
        measured = rows_of(device, depth, options)
        rows += measured
        bounds += bounds_of(device, depth, measured)
    return Section([Table("torch", rows, NOTE)], bounds)


def torch_devices() -> list[str]:
    """The devices that both libraries can use."""
    shared = torch.cuda.is_available() and jax.default_backend() == "gpu"
    return ["cpu", "cuda"] if shared else ["cpu"]


def rows_of(device: str, depth: int, options: Options) -> list[dict]:
    """Times of the three rules in both libraries, all interleaved."""
    count = 20 if options.quick else 200
    place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
    batches = jax.device_put(workload.random_batches(count), place)
    calls = {}
    with jax.default_device(place):
        for name, rule in RULES.items():
            trainer = workload.rule(name, workload.sizes(depth))
            calls[name, "lrajax"] = workload.prepare(workload.steps(trainer), trainer, batches).call
            calls[name, "torch"] = rule(trainer, batches, device)
        threads = peers.choose_threads(calls["lra_e", "torch"])
        seconds = timing.interleaved(calls, options.repeats)
    return [
        {
            "device": device,
            "rule": name,
            "hidden layers": depth,
            "lrajax step (µs)": timing.spread(seconds[name, "lrajax"], 1e6 / count),
            "torch step (µs)": timing.spread(seconds[name, "torch"], 1e6 / count),
            "torch threads": threads,
            "torch over lrajax": timing.ratio(seconds[name, "torch"], seconds[name, "lrajax"]),
        }
        for name in RULES
    ]


def bounds_of(device: str, depth: int, rows: list[dict]) -> list[Bound]:
    """The bound on LRA-E, which is set for the CPU."""
    if device != "cpu" or depth not in LIMITED_DEPTHS:
        return []
    ratios = {row["rule"]: row["torch over lrajax"] for row in rows}
    text = f"lra_e's step at {depth} layers ≥ {LIMIT:g} × as fast as PyTorch's on CPU"
    return [at_least(text, ratios["lra_e"], LIMIT)]


def call_of(step: Callable, trainer: workload.Trainer, batches, weights, device: str):
    """A call that trains over all mini-batches, once it is known to do what lrajax does.

    Args:
      step: `(x, y) -> None`, one step of PyTorch that changes `weights`.
      trainer: lrajax's.
      batches: mini-batches of both.
      weights: PyTorch's parameters in the order of lrajax's leaves, transposed like them.
      device: of PyTorch.
    """
    x, y = (torch.tensor(np.asarray(a), device=device) for a in batches)
    check_same(step, x, y, trainer, batches, weights)

    def call():
        for x_batch, y_batch in zip(x, y, strict=True):
            step(x_batch, y_batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def check_same(step, x, y, trainer, batches, weights, count: int = 3) -> None:
    """Raises AssertionError unless `count` steps lead both libraries to the same parameters."""
    state = jax.jit(trainer.init)(jax.random.key(0))
    some = jax.tree.map(lambda a: a[:count], batches)
    expected = jax.tree.leaves(jax.jit(workload.steps(trainer))(state, some).params)
    for i in range(count):
        step(x[i], y[i])
    for ours, theirs in zip(expected, weights, strict=True):
        theirs = theirs.detach().cpu().numpy()
        np.testing.assert_allclose(theirs, np.asarray(ours), rtol=1e-4, atol=1e-6)


def linear_layers(forward, device: str):
    """`nn.Linear` layers with lrajax's forward weights."""
    layers = torch.nn.ModuleList()
    for entry in forward:
        w, b = np.asarray(entry["w"]), np.asarray(entry["b"])
        layer = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(w.T))
            layer.bias.copy_(torch.tensor(b))
        layers.append(layer)
    return layers.to(device)


def feedback_weights(feedback, device: str) -> list:
    """Error weights as PyTorch parameters, all layers but the first."""
    return [
        torch.nn.Parameter(torch.tensor(np.asarray(entry["w"]), device=device), False)
        for entry in feedback[1:]
    ]


def leaves(layers, errors=()) -> list:
    """Parameters in the order of the leaves of lrajax's: forward b, w of each layer, then E."""
    return [tensor for layer in layers for tensor in (layer.bias, layer.weight.T)] + list(errors)


def activities(layers, x) -> tuple[list, list]:
    """Pre- and post-activities of every layer, the input first among the latter."""
    hs, zs = [], [x]
    for layer in layers:
        hs.append(layer(zs[-1]))
        zs.append(torch.tanh(hs[-1]))
    zs[-1] = torch.softmax(hs[-1], dim=1)
    return hs, zs


def set_gradients(layers, deltas, zs) -> None:
    """Leaves each layer's local update where the optimiser looks for a gradient."""
    for layer, delta, z in zip(layers, deltas, zs, strict=False):
        layer.weight.grad = delta.T @ z
        layer.bias.grad = delta.sum(dim=0)


def backprop(trainer: workload.Trainer, batches, device: str):
    """Autograd and SGD."""
    params = jax.jit(trainer.init)(jax.random.key(0)).params
    layers = linear_layers(params.forward, device)
    optimizer = torch.optim.SGD(layers.parameters(), lr=LEARNING_RATE)

    def step(x, y):
        z = x
        for layer in layers[:-1]:
            z = torch.tanh(layer(z))
        loss = functional.cross_entropy(layers[-1](z), y, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return call_of(step, trainer, batches, leaves(layers), device)


def dfa(trainer: workload.Trainer, batches, device: str):
    """Direct feedback alignment."""
    params = jax.jit(trainer.init)(jax.random.key(0)).params
    layers = linear_layers(params.forward, device)
    errors = feedback_weights(params.feedback, device)
    optimizer = torch.optim.SGD(layers.parameters(), lr=LEARNING_RATE)

    @torch.no_grad()
    def step(x, y):
        _, zs = activities(layers, x)
        e = zs[-1] - y
        hidden = [(e @ E.T) * (1 - z * z) for E, z in zip(errors, zs[1:-1], strict=True)]
        set_gradients(layers, [*hidden, e], zs)
        optimizer.step()

    return call_of(step, trainer, batches, leaves(layers, errors), device)


def lra_e(trainer: workload.Trainer, batches, device: str):
    """LRA-E with derivatives (V1), Gaussian local loss, γ = 1."""
    params = jax.jit(trainer.init)(jax.random.key(0)).params
    layers = linear_layers(params.forward, device)
    errors = feedback_weights(params.feedback, device)
    optimizer = torch.optim.SGD([*layers.parameters(), *errors], lr=LEARNING_RATE)

    @torch.no_grad()
    def step(x, y):
        hs, zs = activities(layers, x)
        e = zs[-1] - y
        deltas = [e]
        for E, h, z in zip(reversed(errors), reversed(hs[:-1]), reversed(zs[1:-1]), strict=True):
            target = torch.tanh(h - BETA * (e @ E.T))
            e = 2 * (z - target)
            deltas.insert(0, e * (1 - z * z))
        set_gradients(layers, deltas, zs)
        for E, layer in zip(errors, layers[1:], strict=True):
            E.grad = layer.weight.grad.T
        optimizer.step()

    return call_of(step, trainer, batches, leaves(layers, errors), device)


RULES = {"backprop": backprop, "dfa": dfa, "lra_e": lra_e}
