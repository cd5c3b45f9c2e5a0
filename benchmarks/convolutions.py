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
from report import Bound, Options, Section, Table, at_most
from workload import BASELINE, BATCH, LEARNING_RATE, MAX_PIXEL, OUTPUTS

import lrajax
from lrajax import layers, networks, training
from lrajax.data import augment, augmentation

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
    "its own number of them, whichever is faster. Memory is the compiler's own account."
)
EPOCH_NOTE = (
    "A training epoch over uint8 images: shuffle, conversion, mean loss and error. PyTorch's has "
    "them too, and flips and crops whole mini-batches as lrajax does."
)
AUGMENTS: dict[str, tuple[str, ...]] = {"none": (), "flip, crop": ("flip", "crop")}
PEER = "PyTorch backprop"


def measure(options: Options) -> Section:
    """Runs the section."""
    count = 2 if options.quick else 40
    rng = np.random.default_rng(0)
    x = rng.random((count, BATCH, layers.size(IMAGE)), np.float32)
    y = np.eye(OUTPUTS, dtype=np.float32)[rng.integers(OUTPUTS, size=(count, BATCH))]
    batches = lrajax.Batch(jnp.asarray(x), jnp.asarray(y))
    found = trainers()
    scans = workload.prepare_all(workload.steps, found, batches)
    calls = {name: scan.call for name, scan in scans.items()}
    peer = None
    if torch is not None:
        peer = Peer(found["backprop"], batches.x[0])
        calls[PEER] = peer.steps(batches)
        peers.choose_threads(calls[PEER])
    seconds = timing.interleaved(calls, options.repeats)
    ratios = {name: timing.ratio(seconds[name], seconds[BASELINE]) for name in calls}
    rows = [
        {
            "step of": name,
            "step (ms)": timing.spread(seconds[name], 1e3 / count),
            "over jax.grad": ratios[name],
            "peak memory (MB)": megabytes(scans.get(name), batches),
        }
        for name in calls
    ]
    bound = at_most(f"lra_e's step on vgg5 ≤ {LIMIT:g} × jax.grad's", ratios["lra_e"], LIMIT)
    epochs, bounds = epochs_of(found, peer, count, options)
    return Section([Table("steps", rows, STEP_NOTE), epochs], [bound, *bounds])


def trainers() -> dict[str, workload.Trainer]:
    """The baseline and the rules, all from W by fan-in."""
    network = networks.vgg5(IMAGE, OUTPUTS, width=WIDTH)
    rules = {
        "backprop": lrajax.backprop(network, w_init="fan_in"),
        "lra_e": lrajax.lra_e(network, derivative=False, w_init="fan_in"),
        "dfa": lrajax.dfa(network, w_init="fan_in"),
        "dtp": lrajax.dtp(network, w_init="fan_in"),
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


def megabytes(scan: workload.Prepared | None, batches: lrajax.Batch) -> float | None:
    """Peak memory of a scan, where there is an account of it."""
    used = scan and workload.peak_bytes(scan.program, batches)
    return used / 1e6 if used else None


def epochs_of(
    found: dict[str, workload.Trainer], peer: "Peer | None", count: int, options: Options
) -> tuple[Table, list[Bound]]:
    """Epochs of `count` steps, with augmentation and without."""
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(count * BATCH, layers.size(IMAGE)), dtype=np.uint8)
    y = rng.integers(OUTPUTS, size=len(x))
    examples = training.Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))

    def call(trainer, names):
        change = augmentation(names, IMAGE) if names else None
        epoch = training.make_train_epoch(trainer.step, BATCH, OUTPUTS, MAX_PIXEL, augment=change)
        return workload.prepare(epoch, trainer, examples).call

    calls = {
        (rule, how): call(found[rule], names)
        for rule in ("backprop", "lra_e")
        for how, names in AUGMENTS.items()
    }
    if peer is not None:
        calls |= {(PEER, how): peer.epoch(x, y, bool(names)) for how, names in AUGMENTS.items()}
    seconds = timing.interleaved(calls, options.repeats)

    def over_peer(rule, how):
        return None if peer is None else timing.ratio(seconds[rule, how], seconds[PEER, how])

    rows = [
        {
            "epoch of": rule,
            "augmentation": how,
            "epoch over its steps (ms)": timing.spread(seconds[rule, how], 1e3 / count),
            "over PyTorch's": over_peer(rule, how),
        }
        for rule, how in calls
    ]
    bounds = [
        at_most(f"{rule}'s epoch on vgg5, augmentation {how}, ≤ PyTorch's", over_peer(rule, how), 1)
        for rule, how in calls
        if peer is not None and rule != PEER
    ]
    return Table("epochs", rows, EPOCH_NOTE), bounds


class Peer:
    """PyTorch's `vgg5` from the weights of lrajax's, known to answer as that does."""

    def __init__(self, trainer: workload.Trainer, images: jax.Array):
        """Makes it.

        Raises:
          AssertionError: it does not answer so.
        """
        forward = jax.jit(trainer.init)(jax.random.key(0)).params.forward
        weights = [torch.tensor(np.asarray(theta["w"])) for theta in forward]
        channels = (IMAGE[2], *FEATURES)
        self.convolutions = [
            torch.nn.Conv2d(n_in, n_out, 3, padding=1)
            for n_in, n_out in itertools.pairwise(channels)
        ]
        self.output = torch.nn.Linear(*weights[-1].shape)
        with torch.no_grad():
            for layer, w in zip(self.convolutions, weights, strict=False):
                layer.weight.copy_(w.permute(3, 2, 0, 1))
            self.output.weight.copy_(weights[-1].T)
            for layer in (*self.convolutions, self.output):
                layer.bias.zero_()
        model = torch.nn.ModuleList([*self.convolutions, self.output])
        model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        network = networks.vgg5(IMAGE, OUTPUTS, width=WIDTH)
        answer = jax.jit(lrajax.backprop(network).predict)(
            lrajax.Params(forward, ((),) * len(forward)), images
        )
        with torch.no_grad():
            theirs = torch.softmax(self.logits(of_numpy(images).reshape(-1, *IMAGE)), dim=1)
        np.testing.assert_allclose(theirs.numpy(), np.asarray(answer), rtol=1e-3, atol=1e-5)

    def logits(self, images):
        """[B, H, W, C] to [B, classes]."""
        z = images.permute(0, 3, 1, 2)  # channels last in memory already
        for layer in self.convolutions:
            z = functional.max_pool2d(functional.relu(layer(z)), 2)
        return self.output(z.permute(0, 2, 3, 1).flatten(1))

    def step(self, images, labels):
        """Trains on a mini-batch; its summed loss and its logits."""
        self.optimizer.zero_grad()
        logits = self.logits(images)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        loss.backward()
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def steps(self, batches: lrajax.Batch) -> Callable[[], None]:
        """Steps over all mini-batches."""
        x, y = map(of_numpy, batches)
        x = x.reshape(*x.shape[:2], *IMAGE)

        def call():
            for images, labels in zip(x, y, strict=True):
                self.step(images, labels)

        return call

    def epoch(self, x: np.ndarray, y: np.ndarray, augment: bool) -> Callable[[], None]:
        """An epoch as lrajax's: shuffled, converted, augmented if wanted, with loss and error."""
        x, y = of_numpy(x).reshape(-1, *IMAGE), of_numpy(y)

        def call():
            loss, wrong = 0.0, 0
            for rows in torch.randperm(len(x)).split(BATCH):
                images = x[rows].float() / MAX_PIXEL
                images = flipped_and_cropped(images) if augment else images
                more, logits = self.step(images, y[rows])
                loss += more.item()
                wrong += (logits.argmax(1) != y[rows]).sum().item()

        return call


def of_numpy(array) -> "torch.Tensor":
    """A tensor of its own memory."""
    return torch.tensor(np.asarray(array))


def flipped_and_cropped(images: "torch.Tensor") -> "torch.Tensor":
    """What `lrajax.data.augment` does to a mini-batch [B, H, W, C]."""
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(2), images)
    padded = functional.pad(images, (0, 0, *[augment.PADDING] * 4))
    starts = torch.randint(2 * augment.PADDING + 1, (len(images), 2)).tolist()
    height, width = IMAGE[:2]
    return torch.stack(
        [image[i : i + height, j : j + width] for image, (i, j) in zip(padded, starts, strict=True)]
    )
