"""The learning rules, one file each. `ALGORITHMS` maps a rule's name to its factory."""

from lrajax.algorithms.backprop import backprop
from lrajax.algorithms.dfa import dfa
from lrajax.algorithms.dtp import dtp, dtp_sigma
from lrajax.algorithms.equil_prop import equil_prop
from lrajax.algorithms.lra_e import lra_e
from lrajax.algorithms.rfa import rfa

ALGORITHMS = {
    "backprop": backprop,
    "rfa": rfa,
    "dfa": dfa,
    "equil_prop": equil_prop,
    "dtp": dtp,
    "dtp_sigma": dtp_sigma,
    "lra_e": lra_e,
}

__all__ = ["ALGORITHMS", *ALGORITHMS]
