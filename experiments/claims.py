"""The paper's claims against recorded results: claim, where, evidence, verdict.

Each check is a function of the results that returns evidence and verdict, or None while the cells
it needs are not there.
"""

from collections.abc import Callable

import cells
import numpy as np

HOLDS, PART, FAILS = "holds", "holds in part", "does not hold here"
MISSING = ("not run yet", "open")
Evidence = tuple[str, str] | None


def rows(results: dict[str, dict[str, dict]]) -> list[list[str]]:
    """One row a claim."""
    return [[claim, where, *(check(results) or MISSING)] for claim, where, check in CLAIMS]


def seeds_of(*records: dict | None) -> int:
    """The fewest seeds that any of the cells has; 0 if one is missing."""
    return min(len(record["settings"]["seeds"]) if record else 0 for record in records)


def mean_error(records: dict[str, dict], name: str) -> float | None:
    """Mean test error of a cell, None if it is missing or diverged."""
    return records[name]["summary"]["test_error_mean"] if name in records else None


def best_at_every_depth(results) -> Evidence:
    """LRA-E against every other rule, six comparisons."""
    won, texts, fewest = 0, [], []
    for table, dataset in (("table1", "mnist"), ("table2", "fashion_mnist")):
        for depth in cells.DEPTHS:
            found = {a: mean_error(results[table], f"{a}-{depth}") for a in cells.PAPER[dataset]}
            if None in found.values():
                return None
            best = min(found, key=found.get)
            fewest.append(seeds_of(*(results[table][f"{algo}-{depth}"] for algo in found)))
            won += best == "lra_e"
            texts.append(f"{dataset} {depth}: {best}")
    verdict = HOLDS if won == 6 else PART if won else FAILS
    text = f"LRA-E has the lowest mean test error in {won} of 6 ({'; '.join(texts)})"
    return f"{text}, with {min(fewest)} seeds or more", verdict


def breaks_down(algo: str) -> Callable[[dict], Evidence]:
    """Whether a rule's error at 8 layers on MNIST is more than twice that at 3."""

    def check(results) -> Evidence:
        shallow, deep = (mean_error(results["table1"], f"{algo}-{d}") for d in (3, 8))
        if shallow is None or deep is None:
            return None
        text = f"MNIST test error {shallow:.2f} % at 3 layers, {deep:.2f} % at 8"
        return text, HOLDS if deep > 2 * shallow else FAILS

    return check


def within_90_degrees(results) -> Evidence:
    """The largest epoch-mean angle of each rule in figure 1."""
    records = results["figure1"]
    if len(records) < 3:
        return None
    largest = {name: np.max(np.asarray(r["curves"]["angle"], float)) for name, r in records.items()}
    text = ", ".join(f"{name} at most {value:.1f}°" for name, value in largest.items())
    return text, HOLDS if max(largest.values()) < 90 else FAILS


def discrepancy_bump(results) -> Evidence:
    """Whether LRA-E's discrepancy first rises and ends below its peak."""
    if "lra_e" not in results["figure1"]:
        return None
    curve = np.asarray(results["figure1"]["lra_e"]["curves"]["discrepancy"], float)
    curve = curve.reshape(len(curve), -1).mean(axis=1)
    peak = int(curve.argmax())
    text = (
        f"{curve[0]:.3f} after epoch 1, {curve[peak]:.3f} at epoch {peak + 1}, {curve[-1]:.3f} last"
    )
    rises, falls = peak > 0, curve[-1] < 0.99 * curve[peak]
    return text, HOLDS if rises and falls else PART if rises or falls else FAILS


def less_dependent_on_initialisation(results) -> Evidence:
    """Spread over the initialisations of DTP and of DTP-σ, figure 3."""
    records = results["figure3"]
    if len(records) < 12:
        return None
    texts, verdicts = [], []
    for depth in (5, 8):
        spans = {}
        for algo in ("dtp", "dtp_sigma"):
            names = [name for name in records if name.startswith(f"{algo}-{depth}-")]
            errors = [np.mean(records[name]["summary"]["valid_error"]) for name in names]
            spans[algo] = max(errors) - min(errors)
        texts.append(f"{depth} layers: DTP {spans['dtp']:.2f}, DTP-σ {spans['dtp_sigma']:.2f}")
        verdicts.append(spans["dtp_sigma"] < spans["dtp"])
    text = "spread of validation error over initialisations, in points: " + "; ".join(texts)
    return text, HOLDS if all(verdicts) else PART if any(verdicts) else FAILS


def derivatives_can_be_dropped(results) -> Evidence:
    """CalcUpdates-V2 against V1: within the seeds' spread, or better."""
    records, names = results["claims"], ("lra_e-gaussian", "lra_e-without_derivatives")
    means = [mean_error(records, name) for name in names]
    if None in means or seeds_of(*map(records.get, names)) < 2:
        return None
    stds = [records[name]["summary"]["test_error_std"] for name in names]
    text = (
        f"MNIST test error after 20 epochs {means[0]:.2f} ± {stds[0]:.2f} % with, "
        f"{means[1]:.2f} ± {stds[1]:.2f} % without"
    )
    return text, HOLDS if means[1] <= means[0] + sum(stds) else PART


def cauchy_is_sparser(results) -> Evidence:
    """Hoyer's sparsity of the hidden layers under either loss, at two values of β."""
    texts, verdicts = [], []
    for beta, ending in (("0.1", ""), ("1", "-beta1")):
        found = [results["claims"].get(f"lra_e-{n}{ending}") for n in ("gaussian", "cauchy")]
        if seeds_of(*found) < 2:
            return None
        gaussian, cauchy = (
            np.mean(np.asarray(record["final"]["sparsity"], float), axis=1) for record in found
        )
        texts.append(f"β = {beta}: Gaussian {gaussian.mean():.3f}, Cauchy {cauchy.mean():.3f}")
        verdicts.append(cauchy.mean() - gaussian.mean() > gaussian.std(ddof=1) + cauchy.std(ddof=1))
    text = "Hoyer's sparsity of the hidden activities, " + "; ".join(texts)
    return text, HOLDS if all(verdicts) else PART if any(verdicts) else FAILS


CLAIMS = [
    ("LRA-E is best at every depth", "Tables 1, 2", best_at_every_depth),
    ("Equil-Prop breaks down at 8 layers", "Table 1", breaks_down("equil_prop")),
    ("DTP breaks down at 8 layers", "Table 1", breaks_down("dtp")),
    ("Update angles stay within 90°", "Figure 1a", within_90_degrees),
    ("The discrepancy bumps, then declines", "Figure 1b", discrepancy_bump),
    ("DTP-σ depends less on the initialisation", "Figure 3", less_dependent_on_initialisation),
    ("Derivatives can be dropped", "Section 3", derivatives_can_be_dropped),
    ("The Cauchy loss gives sparser representations", "Section 3", cauchy_is_sparser),
]
