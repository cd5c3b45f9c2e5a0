"""The learning rules, one file each. `ALGORITHMS` maps a rule's name to its factory."""

from lrajax.algorithms._backprop import backprop
from lrajax.algorithms._dfa import dfa
from lrajax.algorithms._direct_kolen_pollack import direct_kolen_pollack
from lrajax.algorithms._dtp import dtp, dtp_sigma
from lrajax.algorithms._dual_prop import dual_prop
from lrajax.algorithms._equil_prop import equil_prop
from lrajax.algorithms._kolen_pollack import kolen_pollack
from lrajax.algorithms._lra_e import lra_e
from lrajax.algorithms._predictive_coding import predictive_coding
from lrajax.algorithms._rec_lra import rec_lra
from lrajax.algorithms._rfa import rfa
from lrajax.algorithms._sign_symmetric import sign_symmetric
from lrajax.algorithms._weight_mirror import weight_mirror

ALGORITHMS = {
    "backprop": backprop,
    "rfa": rfa,
    "dfa": dfa,
    "equil_prop": equil_prop,
    "dtp": dtp,
    "dtp_sigma": dtp_sigma,
    "lra_e": lra_e,
    "rec_lra": rec_lra,
    "kolen_pollack": kolen_pollack,
    "sign_symmetric": sign_symmetric,
    "predictive_coding": predictive_coding,
}

__all__ = ["ALGORITHMS", *ALGORITHMS, "direct_kolen_pollack", "dual_prop", "weight_mirror"]
