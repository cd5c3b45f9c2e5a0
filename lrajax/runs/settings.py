"""`Settings`: everything that determines the numbers of one or more training runs."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

import lrajax
from lrajax import data, initializers, layers, networks
from lrajax.base import Initializer, PyTree
from lrajax.checks import at_least, between, one_of, positive
from lrajax.compose import split
from lrajax.data import Dataset
from lrajax.data.augment import check_names
from lrajax.runs import named


def normalized_sgd(lr: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """SGD in which every matrix and bias moves by `lr`."""
    return optax.chain(lrajax.normalize_updates(), optax.sgd(lr))


OPTIMIZERS: dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "normalized_sgd": normalized_sgd,
}

# Beyond these a number is a slip of the keyboard, and would fail late and obscurely.
LIMITS = {"hidden_layers": 1000, "width": 10**6, "batch_size": 10**9, "epochs": 2**31 - 1}
# What stands in for an activation without a derivative where a rule needs one.
SURROGATES = {"sign": "sign_ste", "threshold": "threshold_ste"}
BERNOULLI = "bernoulli"  # the activation whose units draw
SCHEDULES = ("constant", "cosine")  # of λ over a run
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the numbers.

    Attributes:
      algo: a key of `lrajax.RULES`, or MODULE:FUNCTION, a factory of one's own.
      opt: a key of `OPTIMIZERS`.
      lr: learning rate λ, > 0.
      dataset: a name that `lrajax.data.load` takes.
      hidden_layers: number of hidden layers; None for a network that has its own.
      width: units in each, or feature maps; None for a network that has its own.
      activation: of the hidden layers, as `lrajax.layers.parse_activation` takes it; or, of an MLP,
        "bernoulli": units that fire with the probability sigmoid(h).
      batch_size: examples in a mini-batch.
      epochs: passes over the training set.
      seeds: one run each, trained together; seed s gives the same run in any company.
      hyperparameters: arguments of the rule's factory; initialisers as text (`gaussian:0.05`).
      sweep: values of `lr` or of number-valued hyperparameters to combine with each other and with
        the seeds; they stand in for the fields above.
      valid_size: examples held out for validation; None for the data set's default.
      split_seed: seed of the validation split.
      network: a key of `networks.NETWORKS`, or MODULE:FUNCTION, a function of one's own.
      schedule: "constant", or "cosine": λ falls from `lr` to 0 over the run.
      weight_decay: share λ × `weight_decay` by which W, and an E that is learned, shrink at every
        step, >= 0, apart from what the optimiser makes of the updates (as in AdamW).
      augment: what is done to training images at random, keys of `lrajax.data.AUGMENTATIONS`.
      standardize: whether images are standardised by channel; None where they have colours.
      dtype: of parameters, activities, errors and the optimiser's states, one of `DTYPES`.
    """

    algo: str
    opt: str
    lr: float
    dataset: str
    hidden_layers: int | None
    width: int | None
    activation: str
    batch_size: int
    epochs: int
    seeds: tuple[int, ...]
    hyperparameters: Mapping[str, Any]
    sweep: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    valid_size: int | None = None
    split_seed: int = 0
    network: str = "mlp"
    schedule: str = "constant"
    weight_decay: float = 0.0
    augment: tuple[str, ...] = ()
    standardize: bool | None = None
    dtype: str = "float32"

    def check(self) -> None:
        """Raises ValueError, naming the setting and the remedy, for what cannot be run."""
        rule = named.rule(self.algo)
        one_of("opt", self.opt, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("dtype", self.dtype, DTYPES)
        at_least("weight_decay", self.weight_decay, 0)
        check_names(self.augment)
        fixed = [name for name, size in network_sizes(self.network).items() if size is None]
        if rule.clipped and self.activation != "tanh":
            raise ValueError(
                f"activation={self.activation} is not a setting of algo={self.algo}, whose units "
                "are clipped to [0, 1]: drop it"
            )
        if self.activation == BERNOULLI and self.network != "mlp":
            raise ValueError(f"activation={BERNOULLI} needs network=mlp, not {self.network}")
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if name not in fixed:
                between(name, value, 1, most)
            elif value is not None:
                raise ValueError(f"{name}= is not a setting of network={self.network}: drop it")
        for seed in (self.seeds[0], self.seeds[-1]):
            between("seed", seed, 0, 2**32 - 1)
        for name in self.hyperparameters:
            check_owner(self.algo, name)
        for combination in itertools.product(*self.sweep.values()):
            values = dict(zip(self.sweep, combination, strict=True))
            positive("lr", values.get("lr", self.lr))
            side = named.trial_side(self.network)
            algo = self.make_algorithm((side, side), 2, values)
        if self.weight_decay and rule.fixed_feedback is None:
            self._check_without_feedback(algo)

    def _check_without_feedback(self, algo: lrajax.Algorithm) -> None:
        """Raises ValueError if a rule has an E of which it does not say whether it is learned."""
        if jax.tree.leaves(jax.eval_shape(algo.init, jax.random.key(0)).feedback):
            raise ValueError(
                f"weight_decay={self.weight_decay} and algo={self.algo}: only an E that is learned "
                "decays; let algo name a lrajax.Rule(..., fixed_feedback=True or False)"
            )

    def runs(self) -> list[dict[str, float]]:
        """Seed and swept values of every run."""
        names = ("seed", *self.sweep)
        values = itertools.product(self.seeds, *self.sweep.values())
        return [dict(zip(names, combination, strict=True)) for combination in values]

    def swept(self, run: Mapping[str, float]) -> dict[str, float]:
        """The swept values of a run, without its seed."""
        return {name: run[name] for name in self.sweep}

    def scale(self, dataset: Dataset) -> dict[str, Any]:
        """What `training` takes to turn the set's bytes into batches."""
        colour = data.is_colour(dataset.image_shape)
        standardized = colour if self.standardize is None else self.standardize
        return {
            "num_classes": dataset.num_classes,
            "max_pixel": dataset.max_pixel,
            "standardize": data.standardizer(dataset) if standardized else None,
        }

    def make_network(self, image_shape: Sequence[int], num_classes: int) -> lrajax.Network:
        """The network for images (H, W) or (H, W, C), or features (n_features,).

        Raises:
          ValueError: it takes images, and the inputs are none, or too small.
        """
        least = networks.FOR_IMAGES.get(self.network)
        if least and (len(image_shape) < 2 or min(image_shape[:2]) < least):
            raise ValueError(
                f"network={self.network} takes images, at least {least} × {least}, "
                f"not inputs of shape {tuple(image_shape)}: choose mlp or resmlp"
            )
        sizes = {"hidden_layers": self.hidden_layers, "width": self.width}
        given = {name: size for name, size in sizes.items() if size is not None}
        # Units that fire with a probability answer with it where nothing is drawn.
        activation = "sigmoid" if self.activation == BERNOULLI else self.activation
        make = named.network(self.network)
        return make(image_shape, num_classes, activation=activation, **given)

    def make_algorithm(
        self, image_shape: Sequence[int], num_classes: int, values: Mapping[str, Any]
    ) -> lrajax.Algorithm:
        """The rule on its network, with swept values that may be traced."""
        network = self.make_network(image_shape, num_classes)
        rule = named.rule(self.algo)
        arguments = {
            name: initializers.parse(value, name)
            if rule.hyperparameters[name].type == Initializer
            else value
            for name, value in self.hyperparameters.items()
        }
        arguments |= {name: v for name, v in values.items() if name in rule.hyperparameters}
        make: Callable[..., lrajax.Algorithm] = functools.partial(rule.factory, **arguments)
        if self.activation != BERNOULLI:
            return lrajax.in_dtype(make(network), self.dtype)
        drawing = lrajax.stochastic(lambda key: make(_firing(network, key)))
        return lrajax.in_dtype(drawing, self.dtype)

    def make_reference(self, image_shape: Sequence[int], num_classes: int) -> lrajax.Algorithm:
        """Backprop on the same network, through a surrogate's slope where it has none."""
        activation = SURROGATES.get(self.activation, self.activation)
        reference = dataclasses.replace(
            self, algo="backprop", activation=activation, hyperparameters={}, sweep={}
        )
        return reference.make_algorithm(image_shape, num_classes, {})

    def make_optimizer(
        self, values: Mapping[str, Any], steps: int, network: lrajax.Network
    ) -> optax.GradientTransformation:
        """The optax optimiser of a run of so many steps; λ and decay may be traced."""
        lr = values.get("lr", self.lr)
        rate = lr if self.schedule == "constant" else optax.cosine_decay_schedule(lr, steps)
        optimizer = OPTIMIZERS[self.opt](rate)
        share = values.get("weight_decay", self.weight_decay)
        if "weight_decay" not in values and not share:  # a searched one may be traced
            return optimizer
        at = rate if callable(rate) else optax.constant_schedule(rate)
        mask = functools.partial(self._decays, network)
        decay = optax.add_decayed_weights(lambda step: -share * at(step), mask)
        return optax.chain(optimizer, decay)

    def _decays(self, network: lrajax.Network, params: lrajax.Params) -> lrajax.Params:
        """True for what decays: weights, but no bias, no gain and no E that stays as drawn."""
        weights = lrajax.Params(*zip(*map(_weights, network.layers, *params), strict=True))
        if not named.rule(self.algo).fixed_feedback:
            return weights
        return weights._replace(feedback=jax.tree.map(lambda _: False, weights.feedback))


def _weights(layer: lrajax.Layer, theta: PyTree, e: PyTree) -> tuple[PyTree, PyTree]:
    """True for the weights among a layer's parameters: the matrices that E mirrors, by any name.

    Biases are not mirrored, or are vectors, as gains are. Of feedback that mirrors nothing, a
    connection of its own, all is weights.
    """
    mirror = jax.eval_shape(
        lambda key: layer.init_feedback(key, initializers.GLOROT), jax.random.key(0)
    )
    names, shared = _paths(mirror), _paths(mirror) & _paths(e)

    def among(paths, tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: path in paths and leaf.ndim > 1, tree
        )

    return among(names, theta), among(shared or _paths(e), e)


def _paths(tree: PyTree) -> set[tuple]:
    return {path for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def network_sizes(network: str) -> dict[str, int | None]:
    """The hidden layers and the width that a network has by default, None where it has its own."""
    parameters = inspect.signature(named.network(network)).parameters
    return {
        name: parameters[name].default if name in parameters else None
        for name in ("hidden_layers", "width")
    }


def _firing(network: lrajax.Network, key: jax.Array | None) -> lrajax.Network:
    """The network with Bernoulli units in its hidden layers, which draw from the key."""
    *hidden, output = network.layers
    units = map(layers.bernoulli, hidden, split(key, len(hidden)))
    return network._replace(layers=(*units, output))


def defaults(algo: str) -> dict[str, Any]:
    """The hyperparameters of a rule and their defaults, initialisers as text."""
    return {
        name: str(one.default) if one.type == Initializer else one.default
        for name, one in named.rule(algo).hyperparameters.items()
    }


def check_owner(algo: str, name: str) -> None:
    """Raises ValueError if `name` is not a hyperparameter of the rule `algo`."""
    owners = [rule.name for rule in named.rules(algo) if name in rule.hyperparameters]
    if algo not in owners:
        of = f", only of {', '.join(owners)}" if owners else ""
        raise ValueError(f"{name}= is not a setting of algo={algo}{of}: drop it")
