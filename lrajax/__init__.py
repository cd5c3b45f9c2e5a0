"""Learning rules that train layered networks without back-propagation's global feedback path."""

from lrajax import (
    architectures,
    checkpoint,
    diagnostics,
    initializers,
    layers,
    losses,
    training,
)
from lrajax.algorithms import (
    ALGORITHMS,
    backprop,
    dfa,
    dtp,
    dtp_sigma,
    equil_prop,
    kolen_pollack,
    lra_e,
    predictive_coding,
    rec_lra,
    rfa,
    sign_symmetric,
)
from lrajax.base import Algorithm, Batch, Calculations, Layer, Loss, Network, Params
from lrajax.compose import by_layer
from lrajax.layers import dense
from lrajax.network import autoencoder, mlp
from lrajax.stochastic import stochastic
from lrajax.transforms import normalize_updates

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Batch",
    "Calculations",
    "Layer",
    "Loss",
    "Network",
    "Params",
    "architectures",
    "autoencoder",
    "backprop",
    "by_layer",
    "checkpoint",
    "dense",
    "dfa",
    "diagnostics",
    "dtp",
    "dtp_sigma",
    "equil_prop",
    "initializers",
    "kolen_pollack",
    "layers",
    "losses",
    "lra_e",
    "mlp",
    "normalize_updates",
    "predictive_coding",
    "rec_lra",
    "rfa",
    "sign_symmetric",
    "stochastic",
    "training",
]
