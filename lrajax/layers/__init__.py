"""Layers, what turns one layer into another, and the local products that rules are made of."""

from lrajax.layers.activations import ACTIVATIONS, kwta, parse_activation
from lrajax.layers.affine import conv, dense, locally_connected
from lrajax.layers.products import (
    EXAMPLES,
    batch_axes,
    dtype,
    feedback,
    mean_over_examples,
    post,
    pre,
    recall,
    remember,
    size,
    vjp_below,
    vjp_feedback,
    vjp_post,
    vjp_theta,
)
from lrajax.layers.wrappers import (
    bernoulli,
    bfloat16,
    binary,
    dropout,
    layer_norm,
    reshaped,
    residual,
)

__all__ = [
    "ACTIVATIONS",
    "EXAMPLES",
    "batch_axes",
    "bernoulli",
    "bfloat16",
    "binary",
    "conv",
    "dense",
    "dropout",
    "dtype",
    "feedback",
    "kwta",
    "layer_norm",
    "locally_connected",
    "mean_over_examples",
    "parse_activation",
    "post",
    "pre",
    "recall",
    "remember",
    "reshaped",
    "residual",
    "size",
    "vjp_below",
    "vjp_feedback",
    "vjp_post",
    "vjp_theta",
]
