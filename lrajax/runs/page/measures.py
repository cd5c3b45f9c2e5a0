"""What a finished run's parameters say beyond its errors; computed when a report is drawn."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

import lrajax
from lrajax import diagnostics, layers, losses, training
from lrajax.data import Dataset, Examples
from lrajax.runs import named, reading
from lrajax.runs.settings import Settings

BATCH = 1000  # validation examples that angles and discrepancy are measured on
TAIL = 0.1  # an activity is saturated where the activation's slope is below this


class Measures(NamedTuple):
    """Of one run's parameters, on validation examples but for the confusion matrix.

    Attributes:
      angles: degrees between the rule's and backprop's update, for each hidden layer; NaN for
        equilibrium propagation.
      feedback_angles: degrees between E and Wᵀ, NaN for layers whose feedback does not mirror W.
      discrepancy: D(y, x), mean over the examples; NaN for equilibrium propagation.
      output_loss: mean over the examples.
      saturation: share of saturated activities in %, for each hidden layer.
      confusion: test examples by label (rows) and answer (columns).
    """

    angles: np.ndarray | jax.Array
    feedback_angles: np.ndarray | jax.Array
    discrepancy: np.ndarray | jax.Array
    output_loss: np.ndarray | jax.Array
    saturation: np.ndarray | jax.Array
    confusion: np.ndarray | jax.Array


class Probe:
    """Measures the parameters of a folder's runs."""

    def __init__(self, settings: Settings, dataset: Dataset):
        """Compiles nothing yet: one program serves all swept values."""
        self.settings = settings
        self.shape = (dataset.image_shape, dataset.num_classes)
        self.scale = settings.scale(dataset)
        self.dataset = dataset
        self.backprop = settings.make_reference(*self.shape)
        self.network = settings.make_network(*self.shape)
        local_loss = settings.hyperparameters.get("local_loss", "gaussian")
        self.local_loss = losses.LOCAL_LOSSES[local_loss]
        self.clipped = named.rule(settings.algo).clipped
        self._start = jax.jit(self._start_from)
        self._measure = jax.jit(self._measures)

    def start(self, seed: int, values: Mapping[str, float]) -> lrajax.Params:
        """The parameters that a seed's run began with."""
        return self._start(jax.random.key(seed), values)

    def _start_from(self, key: PRNGKeyArray, values: Mapping[str, Any]) -> lrajax.Params:
        algo = self.settings.make_algorithm(*self.shape, values)
        return reading.start(algo, key, len(self.dataset.train.y))

    @functools.cached_property
    def like(self) -> lrajax.Params:
        """The shapes of a run's parameters."""
        values = self.settings.swept(self.settings.runs()[0])
        return jax.eval_shape(lambda: self.start(0, values))

    def measure(self, params: lrajax.Params, values: Mapping[str, float]) -> Measures:
        """Everything, on the host, of parameters and the swept values they were trained with."""
        with jax.default_matmul_precision("float32"):  # as the runs were trained
            return jax.tree.map(np.asarray, self._measure(params, values, *self.batches))

    @functools.cached_property
    def batches(self) -> tuple[lrajax.Batch, lrajax.Batch]:
        """The first validation examples, and the test set."""

        @jax.jit
        def batch(examples):
            return training.to_batch(examples, jnp.arange(len(examples.y)), **self.scale)

        valid, test = self.dataset.valid, self.dataset.test
        return batch(Examples(*(part[:BATCH] for part in valid))), batch(test)

    def _measures(
        self,
        params: lrajax.Params,
        values: Mapping[str, jax.Array],
        batch: lrajax.Batch,
        test: lrajax.Batch,
    ) -> Measures:
        algo = self.settings.make_algorithm(*self.shape, values)
        key = jax.random.key(0)  # the same noise for every run, so that they can be compared
        lambda_ = algo.compute_targets(params, batch, key=key)
        angles, _ = diagnostics.update_angles_to_backprop(
            self.backprop, algo, params, batch, key=key
        )
        answer = algo.predict(params, test.x).argmax(axis=-1)
        size = self.dataset.num_classes
        discrepancy = diagnostics.total_discrepancy(self.network, lambda_, self.local_loss).mean()
        if self.clipped:
            # Such states are other units than those that backprop goes through, and the output's
            # target is a state too, not the label.
            angles, discrepancy = (jnp.full_like(a, jnp.nan) for a in (angles, discrepancy))
        return Measures(
            angles=angles[:-1],  # the output's update is backprop's own
            feedback_angles=diagnostics.mirror_angles(params),
            discrepancy=discrepancy,
            output_loss=algo.loss(batch.y, lambda_.z[-1]).mean(),
            saturation=self._saturation(lambda_),
            confusion=jnp.zeros((size, size), int).at[test.y.argmax(axis=-1), answer].add(1),
        )

    def _saturation(self, lambda_: lrajax.Calculations) -> jax.Array:
        if self.clipped:
            flat = [(z <= 0) | (z >= 1) for z in lambda_.z[:-1]]
        else:
            slopes = (
                layers.vjp_post(layer, h, jnp.ones_like(h))
                for layer, h in zip(self.network.layers[:-1], lambda_.h[:-1], strict=True)
            )
            flat = [jnp.abs(slope) < TAIL for slope in slopes]
        return 100 * jnp.stack([layer.mean() for layer in flat])


def filters(params: lrajax.Params, image_shape: Sequence[int]) -> np.ndarray | None:
    """The lowest layer's weights as images, [n_filters, H, W] or with channels [..., C].

    Of a dense layer on images the weights of each unit, of a convolution each kernel; None of other
    layers and of features that are no images.
    """
    theta = params.forward[0]
    weights = np.asarray(theta["w"]) if isinstance(theta, dict) and "w" in theta else np.zeros(0)
    if weights.ndim == 4:
        kernels = np.moveaxis(weights, -1, 0)
        return kernels[..., 0] if kernels.shape[-1] == 1 else kernels
    if weights.ndim == 2 and len(image_shape) > 1:
        return weights.T.reshape(-1, *image_shape)
    return None
