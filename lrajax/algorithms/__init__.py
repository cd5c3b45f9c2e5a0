"""The learning rules, one file each, and the table of their records."""

from collections.abc import Callable

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
from lrajax.algorithms._rule import Hyperparameter as Hyperparameter
from lrajax.algorithms._rule import Rule
from lrajax.algorithms._sign_symmetric import sign_symmetric
from lrajax.algorithms._weight_mirror import weight_mirror
from lrajax.base import Algorithm

RULES = {
    rule.name: rule
    for rule in (
        Rule(backprop, "Backprop", "Rumelhart, Hinton and Williams 1988"),
        Rule(rfa, "RFA", "Lillicrap et al. 2016", fixed_feedback=True),
        Rule(dfa, "DFA", "Nøkland 2016", fixed_feedback=True),
        Rule(
            equil_prop,
            "Equil-Prop",
            "Scellier and Bengio 2017",
            traced={"beta": (0.05, 2), "step_size": (0.1, 1)},
            clipped=True,
            plain={"nudge": "centred"},
        ),
        Rule(
            dtp,
            "DTP",
            "Lee et al. 2015",
            traced={"noise": (0.003, 1), "target_rate": (0.003, 1)},
            plain={"noise": 0.0},
        ),
        Rule(
            dtp_sigma,
            "DTP-σ",
            "Ororbia and Mali 2019, equations 9–11",
            traced={"alpha": (0.001, 1), "target_rate": (0.003, 1)},
            plain={"alpha": 1e-30, "sigma_loss": "corrupted"},
        ),
        Rule(
            lra_e,
            "LRA-E",
            "Ororbia and Mali 2019, Algorithm 1",
            traced={"beta": (0.01, 1), "gamma": (0.1, 3)},
        ),
        Rule(
            rec_lra,
            "rec-LRA",
            "Ororbia, Mali, Kifer and Giles 2023",
            traced={"beta": (0.01, 1), "gamma": (0.1, 3)},
        ),
        Rule(
            kolen_pollack,
            "Kolen-Pollack",
            "Kolen and Pollack 1994, Akrout et al. 2019",
            traced={"decay": (1e-5, 0.1)},
            plain={"decay": 0.0},
        ),
        Rule(
            sign_symmetric,
            "sign-symmetric",
            "Liao, Leibo and Poggio 2016",
            fixed_feedback=True,
        ),
        Rule(
            predictive_coding,
            "predictive coding",
            "Whittington and Bogacz 2017",
            traced={"beta": (0.05, 2), "step_size": (0.01, 0.5)},
        ),
        Rule(
            weight_mirror,
            "weight mirror",
            "Akrout et al. 2019",
            traced={"mirror_rate": (0.001, 0.3)},
            plain={"mirror_rate": 0.0},
        ),
        Rule(
            direct_kolen_pollack,
            "direct Kolen-Pollack",
            "Webster, Choi and Ahn 2020",
            traced={"decay": (1e-5, 1e-2)},
            plain={"decay": 0.0},
        ),
        Rule(
            dual_prop, "dual propagation", "Høier, Staudt and Zach 2023", traced={"beta": (0.01, 2)}
        ),
    )
}
"""The records of all rules, by name."""

ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    name: rule.factory for name, rule in RULES.items()
}
"""The factories alone, by name."""

# Written out, so that type checkers know them as names of `lrajax` too.
__all__ = [
    "ALGORITHMS",
    "RULES",
    "Rule",
    "backprop",
    "dfa",
    "direct_kolen_pollack",
    "dtp",
    "dtp_sigma",
    "dual_prop",
    "equil_prop",
    "kolen_pollack",
    "lra_e",
    "predictive_coding",
    "rec_lra",
    "rfa",
    "sign_symmetric",
    "weight_mirror",
]
