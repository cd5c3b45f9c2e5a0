"""Steps on `vgg5` with colour images, beside backprop by `jax.grad` and PyTorch; augmentation."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers
import timing
import workload
from report import Options, Section, Table, at_most
from workload import BASELINE, BATCH, LEARNING_RATE, MAX_PIXEL, OUTPUTS

import lrajax
from lrajax import layers, networks, training
from lrajax.data import augmentation

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None

IMAGE, WIDTH, FEATURES = (32, 32, 3), 32, (32, 64, 128, 128)
LIMIT = 1.15
STEP_NOTE = (
    "`vgg5` with 32 features, relu, batch 50, Adam; LRA-E without derivatives (V2). `jax.grad` "
    "takes the gradient through the same layers. Steps run in one scan, as in an epoch. PyTorch, "
    "where it is installed, computes the same answers eagerly, channels last, on one thread or on "
    "its own number of them, whichever is faster."
)
EPOCH_NOTE = "The library's training epoch of LRA-E, as above, over uint8 images."


def measure(options: Options) -> Section:
    """Runs the section."""
    count = 2 if options.quick else 10
    rng = np.random.default_rng(0)
    x = rng.random((count, BATCH, layers.size(IMAGE)), np.float32)
    y = np.eye(OUTPUTS, dtype=np.float32)[rng.integers(OUTPUTS, size=(count, BATCH))]
    batches = lrajax.Batch(jnp.asarray(x), jnp.asarray(y))
    found = trainers()
    calls = {
        name: workload.prepare(workload.steps(trainer), trainer, batches).call
        for name, trainer in found.items()
    }
    if torch is not None:
        calls["PyTorch backprop"] = torch_call(found["backprop"], batches)
        peers.choose_threads(calls["PyTorch backprop"])
    seconds = timing.interleaved(calls, options.repeats)
    ratios = {name: timing.ratio(seconds[name], seconds[BASELINE]) for name in calls}
    rows = [
        {
            "step of": name,
            "step (ms)": timing.spread(seconds[name], 1e3 / count),
            "over jax.grad": ratios[name],
        }
        for name in calls
    ]
    bound = at_most(f"lra_e's step on vgg5 ≤ {LIMIT:g} × jax.grad's", ratios["lra_e"], LIMIT)
    tables = [Table("steps", rows, STEP_NOTE), epochs(found["lra_e"], count, options)]
    return Section(tables, [bound])


def trainers() -> dict[str, workload.Trainer]:
    """The baseline and three rules, all from W by fan-in."""
    network = networks.vgg5(IMAGE, OUTPUTS, width=WIDTH)
    rules = {
        "backprop": lrajax.backprop(network, w_init="fan_in"),
        "lra_e": lrajax.lra_e(network, derivative=False, w_init="fan_in"),
        "dfa": lrajax.dfa(network, w_init="fan_in"),
    }
    optimizer = optax.adam(LEARNING_RATE)

    def of(algo: lrajax.Algorithm) -> workload.Trainer:
        return workload.Trainer(
            lambda key: training.init_state(algo, optimizer, key),
            training.make_train_step(algo, optimizer),
        )

    return {BASELINE: by_grad(rules["backprop"], network, optimizer)} | {
        name: of(algo) for name, algo in rules.items()
    }


def by_grad(
    backprop: lrajax.Algorithm, network: lrajax.Network, optimizer: optax.GradientTransformation
) -> workload.Trainer:
    """Backprop by the gradient of the loss, through the network's layers."""

    def init(key):
        forward = backprop.init(key).forward
        return training.TrainState(forward, optimizer.init(forward), key, jnp.array(0))

    def loss(forward, batch):
        z = batch.x
        for layer, theta in zip(network.layers, forward, strict=True):
            h = layers.pre(layer, theta, z)
            z = layers.post(layer, h)
        return -(batch.y * jax.nn.log_softmax(h)).sum()

    def step(state, batch):
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        deltas, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, deltas)
        return training.TrainState(params, opt_state, state.key, state.step + 1), value

    return workload.Trainer(init, step)


def epochs(trainer: workload.Trainer, count: int, options: Options) -> Table:
    """An epoch of `count` steps with augmentation beside one without."""
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(count * BATCH, layers.size(IMAGE)), dtype=np.uint8)
    y = rng.integers(OUTPUTS, size=len(x))
    examples = training.Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))

    def call(augment):
        epoch = training.make_train_epoch(trainer.step, BATCH, OUTPUTS, MAX_PIXEL, augment=augment)
        return workload.prepare(epoch, trainer, examples).call

    calls = {"none": call(None), "flip, crop": call(augmentation(("flip", "crop"), IMAGE))}
    seconds = timing.interleaved(calls, options.repeats)
    rows = [
        {
            "augmentation": name,
            "epoch over its steps (ms)": timing.spread(seconds[name], 1e3 / count),
            "over none": timing.ratio(seconds[name], seconds["none"]),
        }
        for name in calls
    ]
    return Table("augmentation", rows, EPOCH_NOTE)


def torch_call(trainer: workload.Trainer, batches: lrajax.Batch) -> Callable[[], None]:
    """Trains PyTorch's `vgg5` over all mini-batches, once it is known to answer as lrajax's does.

    Raises:
      AssertionError: it does not.
    """
    forward = jax.jit(trainer.init)(jax.random.key(0)).params.forward
    weights = [torch.tensor(np.asarray(theta["w"])) for theta in forward]
    channels = (IMAGE[2], *FEATURES)
    convolutions = [
        torch.nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in itertools.pairwise(channels)
    ]
    output = torch.nn.Linear(*weights[-1].shape)
    with torch.no_grad():
        for layer, w in zip(convolutions, weights, strict=False):
            layer.weight.copy_(w.permute(3, 2, 0, 1))
        output.weight.copy_(weights[-1].T)
        for layer in (*convolutions, output):
            layer.bias.zero_()
    model = torch.nn.ModuleList([*convolutions, output]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    x, y = (torch.tensor(np.asarray(a)) for a in batches)
    x = x.reshape(*x.shape[:2], *IMAGE)

    def logits(images):
        z = images.permute(0, 3, 1, 2)  # channels last in memory already
        for layer in convolutions:
            z = functional.max_pool2d(functional.relu(layer(z)), 2)
        return output(z.permute(0, 2, 3, 1).flatten(1))

    def call():
        for images, labels in zip(x, y, strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(logits(images), labels, reduction="sum").backward()
            optimizer.step()

    network = networks.vgg5(IMAGE, OUTPUTS, width=WIDTH)
    answer = jax.jit(lrajax.backprop(network).predict)(
        lrajax.Params(forward, ((),) * len(forward)), batches.x[0]
    )
    with torch.no_grad():
        theirs = torch.softmax(logits(x[0]), dim=1).numpy()
    np.testing.assert_allclose(theirs, np.asarray(answer), rtol=1e-3, atol=1e-5)
    return call
