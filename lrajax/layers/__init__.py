"""Layers, what turns one layer into another, and the local products that rules are made of."""

from lrajax.layers.activations import ACTIVATIONS, kwta, parse_activation
from lrajax.layers.affine import conv, dense, locally_connected
from lrajax.layers.below import binary, globally_pooled, pooled, reshaped, standardised
from lrajax.layers.blocks import chain, residual
from lrajax.layers.checking import check_layer
from lrajax.layers.norms import batch_norm, group_norm, layer_norm
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
from lrajax.layers.wrappers import bernoulli, bfloat16, dropout

__all__ = [
    "ACTIVATIONS",
    "EXAMPLES",
    "batch_axes",
    "batch_norm",
    "bernoulli",
    "bfloat16",
    "binary",
    "chain",
    "check_layer",
    "conv",
    "dense",
    "dropout",
    "dtype",
    "feedback",
    "globally_pooled",
    "group_norm",
    "kwta",
    "layer_norm",
    "locally_connected",
    "mean_over_examples",
    "parse_activation",
    "pooled",
    "post",
    "pre",
    "recall",
    "remember",
    "reshaped",
    "residual",
    "size",
    "standardised",
    "vjp_below",
    "vjp_feedback",
    "vjp_post",
    "vjp_theta",
]
