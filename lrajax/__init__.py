"""Learning rules that train layered networks without back-propagation's global feedback path."""

from jax import export

from lrajax import (
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
from lrajax.algorithms import (
    ALGORITHMS,
    RULES,
    Rule,
    backprop,
    dfa,
    direct_kolen_pollack,
    dtp,
    dtp_sigma,
    dual_prop,
    equil_prop,
    kolen_pollack,
    lra_e,
    predictive_coding,
    rec_lra,
    rfa,
    sign_symmetric,
    weight_mirror,
)
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
    "ALGORITHMS",
    "RULES",
    "Algorithm",
    "Batch",
    "Calculations",
    "Card",
    "Layer",
    "Loss",
    "Network",
    "Params",
    "Rule",
    "audit",
    "autoencoder",
    "backprop",
    "by_layer",
    "checkpoint",
    "dense",
    "dfa",
    "diagnostics",
    "direct_kolen_pollack",
    "dtp",
    "dtp_sigma",
    "dual_prop",
    "equil_prop",
    "in_dtype",
    "initializers",
    "kolen_pollack",
    "layers",
    "losses",
    "lra_e",
    "mlp",
    "networks",
    "normalize_updates",
    "predictive_coding",
    "rec_lra",
    "rfa",
    "sign_symmetric",
    "stochastic",
    "tied",
    "training",
    "weight_mirror",
]
