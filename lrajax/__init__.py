"""Learning rules that train layered networks without back-propagation's global feedback path."""

import itertools
import sys

# As `python -m lrajax` this comes before the command, and takes the seconds that imports take.
if sys.argv[:1] == ["-m"] and ("-m", "lrajax") in itertools.pairwise(sys.orig_argv):
    import lrajax_command

    lrajax_command.listen()

from jax import export

from lrajax import (
    algorithms,
    base,
    checkpoint,
    data,
    diagnostics,
    initializers,
    layers,
    losses,
    networks,
    training,
)
from lrajax.algorithms import *  # noqa: F403 - each rule, by its name
from lrajax.base import Algorithm, Batch, Calculations, Layer, Loss, Network, Params
from lrajax.cards import Card, audit
from lrajax.compose import by_layer, in_dtype, stochastic, tied
from lrajax.layers import dense
from lrajax.networks import autoencoder, mlp
from lrajax.transforms import normalize_updates

# So that what is compiled for these types can be stored: `jax.export` asks for their names.
for _kind in (
    Params,
    Batch,
    base.IndexedBatch,
    Calculations,
    data.Examples,
    training.TrainState,
    training.Best,
    training.Run,
    training.Metrics,
    training.EpochMetrics,
):
    export.register_namedtuple_serialization(_kind, serialized_name=f"lrajax.{_kind.__name__}")

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Batch",
    "Calculations",
    "Card",
    "Layer",
    "Loss",
    "Network",
    "Params",
    "audit",
    "autoencoder",
    "by_layer",
    "checkpoint",
    "dense",
    "diagnostics",
    "in_dtype",
    "initializers",
    "layers",
    "losses",
    "mlp",
    "networks",
    "normalize_updates",
    "stochastic",
    "tied",
    "training",
    *algorithms.__all__,
]
