"""Networks by which rules that fail on CIFAR-10 may be helped: docs/evidence/layers.md."""

from collections.abc import Sequence

import lrajax
from lrajax import layers, networks


def normed_vgg5(
    image_shape: Sequence[int], num_classes: int, *, width: int = 32, activation: str = "relu"
) -> lrajax.Network:
    """`vgg5` whose hidden layers standardise what goes into their nonlinearity."""
    network = networks.vgg5(image_shape, num_classes, width=width, activation=activation)
    *hidden, output = network.layers
    return network._replace(layers=(*map(layers.layer_norm, hidden), output))
