"""The paper's claims against recorded results: claim, where, evidence, verdict.

Each check is a function of the results that returns evidence and verdict, or None while the cells
it needs are not there.
"""

from collections.abc import Callable

import numpy as np

from lrajax.runs.records import seeds_in_words
from paper import cells, statements

HOLDS, PART, FAILS = "holds", "holds in part", "does not hold here"
NOT_ESTABLISHED = "not established"
MISSING, TOO_FEW = ("not run yet", "open"), ("needs a second seed", "open")
LEARNS = 50  # % of error that a network which learns at all is below
Evidence = tuple[str, str] | None


def rows(results: dict[str, dict[str, dict]], claims: list) -> list[list[str]]:
    """One row a claim."""
    return [[claim, where, *(check(results) or MISSING)] for claim, where, check in claims]


def too_few(records: list[dict]) -> bool:
    """Whether a cell has a single seed, and so no spread to compare a difference with."""
    return any(len(record["settings"]["seeds"]) < 2 for record in records)


def mean_of(records: dict[str, dict], name: str, error: str = "test_error") -> float | None:
    """Mean error of a cell over its seeds: None if it is missing, NaN if a seed diverged."""
    if name not in records:
        return None
    return errors_of(records[name], error).mean()


def errors_of(record: dict, error: str = "test_error") -> np.ndarray:
    """Errors of a cell's seeds, NaN for one that diverged."""
    return np.asarray(record["summary"][error], float)


def spread_of(errors: np.ndarray) -> str:
    """Mean ± standard deviation of some seeds' errors."""
    spread = f" ± {errors.std(ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{errors.mean():.2f}{spread}"


def clearly_lower(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a mean is lower by more than both standard deviations together."""
    return bool(a.mean() + a.std(ddof=1) + b.std(ddof=1) < b.mean())


def verdict(checks: list[bool]) -> str:
    """Of a claim in several parts, or in none that could be checked."""
    return HOLDS if checks and all(checks) else PART if any(checks) else FAILS


def size_of(records: list[dict]) -> str:
    """The fewest seeds, and the fewest epochs, of cells that are compared."""
    seeds = min(len(record["settings"]["seeds"]) for record in records)
    epochs = min(record["settings"]["epochs"] for record in records)
    return f"at least {seeds_in_words(seeds)} and {epochs} epochs each"


def best_at_every_depth(results) -> Evidence:
    """LRA-E against the paper's rules, and against every row that is there, six comparisons."""
    won, texts, compared = [], [], []
    for dataset, table in cells.TABLES.items():
        for depth in cells.DEPTHS:
            names = (*cells.PAPER[dataset], *cells.CONTROLS)
            found = {a: mean_of(results[table], f"{a}-{depth}") for a in names}
            found = {name: error for name, error in found.items() if error is not None}
            if "lra_e" not in found or len(found) < 2:
                return None
            compared += [results[table][f"{name}-{depth}"] for name in found]
            ranked = sorted(found, key=lambda name: np.nan_to_num(found[name], nan=100))
            best = next(name for name in ranked if name in cells.PAPER[dataset])
            won.append((best == "lra_e", ranked[0] == "lra_e"))
            texts.append(f"{dataset} {depth}: {best}, {ranked[0]}")
    among_papers, among_all = map(list, zip(*won, strict=True))
    text = (
        f"LRA-E has the lowest mean test error in {sum(among_papers)} of 6 among the paper's "
        f"rules, in {sum(among_all)} with the rows beside them ({'; '.join(texts)})"
    )
    return f"{text}; {size_of(compared)}", verdict([*among_papers, *among_all])


def breaks_down(algo: str) -> Callable[[dict], Evidence]:
    """Whether a rule's error at 8 layers is more than twice that at 3, on either set."""

    def check(results) -> Evidence:
        texts, checks, compared = [], [], []
        for dataset, table in cells.TABLES.items():
            names = [f"{algo}-{depth}" for depth in (3, 8)]
            shallow, deep = (mean_of(results[table], name) for name in names)
            if shallow is None or deep is None:
                return None
            compared += [results[table][name] for name in names]
            checks.append(not deep <= 2 * shallow)  # also of a seed that diverged
            texts.append(f"{dataset} test error {shallow:.2f} % at 3 layers, {deep:.2f} % at 8")
        return f"{'; '.join(texts)}; {size_of(compared)}", verdict(checks)

    return check


# Cells of the target settling that the verdict on equilibrium propagation looks at.
SETTLING = {
    "digits with 8 layers by free sweeps": [f"digits_{n}-8" for n in statements.SWEEPS],
    "3 epochs": [
        "preset-8",
        "longer-8",
        "preset_fashion-8",
        "longer_fashion-8",
        "strong-3",
        "strong-8",
    ],
}


def equil_prop_breaks_down(results) -> Evidence:
    """From the tables, beside phases that settle and the publication's energy (target settling)."""
    found = breaks_down("equil_prop")(results)
    if found is None:
        return None
    text, judgement = found
    texts, settling = [f"{text}; in turn, under γ = 0.3"], results["settling"]
    for title, names in SETTLING.items():
        others = [f"{n} {spread_of(errors_of(settling[n]))}" for n in names if n in settling]
        if others:
            texts.append(f"{title}: {', '.join(others)} %")
    return "; ".join(texts), judgement


def within_90_degrees(results) -> Evidence:
    """The largest angle of each rule after any epoch: of all layers, of one hidden layer."""
    records = results["figure1"]
    if len(records) < 3:
        return None
    largest = {
        name: [
            np.max(np.asarray(r["curves"]["angle"], float)),
            np.max(np.asarray(r["curves"]["layer_angles"], float)[..., :-1]),
        ]
        for name, r in records.items()
    }
    text = ", ".join(
        f"{name} at most {overall:.1f}° ({layer:.1f}° in one hidden layer)"
        for name, (overall, layer) in largest.items()
    )
    return text, verdict([angle < 90 for both in largest.values() for angle in both])


def discrepancy_bump(results) -> Evidence:
    """Whether LRA-E's internal discrepancy, by the step, first rises and ends below its peak.

    Without the output's loss, which falls from its highest value and hides the rest.
    """
    texts, checks = [], []
    for name, scale in (("lra_e-small_e", "0.05"), ("lra_e", "0.2236")):
        if name not in results["steps"]:
            return None
        steps = results["steps"][name]["final"]["steps"]
        curve = np.asarray(steps["internal"], float).mean(axis=0)
        peak = int(curve.argmax())
        texts.append(
            f"E's σ = {scale}: {curve[0]:.4f} at the start, {curve[peak]:.4f} at most (step "
            f"{peak * steps['every']}), {curve[-1]:.4f} after 3 epochs"
        )
        checks.append(peak > 0 and curve[peak] > 1.5 * curve[0] and curve[-1] < 0.9 * curve[peak])
        seeds = seeds_in_words(len(steps["internal"]))
    return f"internal discrepancy, {'; '.join(texts)}; {seeds}", verdict(checks)


def less_dependent_on_initialisation(results) -> Evidence:
    """What initialisations differ by under DTP and DTP-σ, seed by seed, figure 3 on both sets."""
    texts, compared, less, more = [], [], [], []
    for target, dataset in (("figure3", "mnist"), ("figure3_fashion", "fashion_mnist")):
        for depth in (5, 8):
            groups = [
                [r for name, r in results[target].items() if name.startswith(f"{algo}-{depth}-")]
                for algo in ("dtp", "dtp_sigma")
            ]
            both = [record for records in groups for record in records]
            if len(both) < 2 * len(cells.INITIALIZERS) or too_few(both):
                return None
            dtp, ours = (span_of(records) for records in groups)
            texts.append(f"{dataset} {depth} layers {spread_of(ours)} (DTP {spread_of(dtp)})")
            compared += both
            less.append(clearly_lower(ours, dtp))
            more.append(clearly_lower(dtp, ours))
    text = "largest less smallest validation error over initialisations of DTP-σ, in points: "
    judgement = verdict(less) if any(less) or any(more) else NOT_ESTABLISHED
    return f"{text}{'; '.join(texts)}; {size_of(compared)}", judgement


def span_of(records: list[dict]) -> np.ndarray:
    """Largest less smallest validation error over some cells, of the seeds that all have."""
    errors = (errors_of(record, "valid_error") for record in records)
    return np.ptp(list(zip(*errors, strict=False)), axis=1)


def derivatives_can_be_dropped(results) -> Evidence:
    """CalcUpdates-V2 against V1: within the seeds' spread or better; or else within half again."""
    found = [results["claims"].get(f"lra_e-{n}") for n in ("gaussian", "without_derivatives")]
    if None in found:
        return None
    if too_few(found):
        return TOO_FEW
    (with_them, without), (std, other_std) = (
        [errors_of(record).mean() for record in found],
        [errors_of(record).std(ddof=1) for record in found],
    )
    text = (
        f"MNIST test error after 20 epochs {with_them:.2f} ± {std:.2f} % with, "
        f"{without:.2f} ± {other_std:.2f} % without"
    )
    within = without <= with_them + std + other_std
    return text, HOLDS if within else PART if without <= 1.5 * with_them else FAILS


def cauchy_is_sparser(results) -> Evidence:
    """Hoyer's sparsity of the hidden layers under either loss, at values of β where both learn."""
    texts, checks = [], []
    betas = sorted({name.partition("-")[2] for name in results["cauchy"]}, key=float)
    for beta in betas:
        found = [results["cauchy"].get(f"{loss}-{beta}") for loss in ("gaussian", "cauchy")]
        if None in found:
            return None
        if too_few(found):
            return TOO_FEW
        gaussian, cauchy = (
            np.mean(np.asarray(record["final"]["sparsity"], float), axis=1) for record in found
        )
        errors = [errors_of(record).mean() for record in found]
        texts.append(
            f"β = {beta}: Gaussian {gaussian.mean():.3f} (test error {errors[0]:.2f} %), "
            f"Cauchy {cauchy.mean():.3f} ({errors[1]:.2f} %)"
        )
        if all(error < LEARNS for error in errors):
            checks.append(clearly_lower(gaussian, cauchy))
    if not texts:
        return None
    text = "Hoyer's sparsity of the hidden activities, " + "; ".join(texts)
    return text, verdict(checks)


def separates_best(results) -> Evidence:
    """LRA-E's topmost hidden layer against the other rules', by silhouette and neighbours."""
    records = results["figure2"]
    if "lra_e" not in records or len(records) < 4:
        return None
    if too_few(records.values()):
        return TOO_FEW
    measures = {"silhouette": ("silhouette", 3), "10-NN %": ("knn_accuracy", 1)}
    texts, best = [], []
    for title, (measure, decimals) in measures.items():
        found = {name: np.asarray(r["final"][measure], float) for name, r in records.items()}
        ours = found.pop("lra_e")
        others = ", ".join(f"{n} {v.mean():.{decimals}f}" for n, v in found.items())
        texts.append(f"{title} of LRA-E {ours.mean():.{decimals}f}, {others}")
        best.append(all(clearly_lower(other, ours) for other in found.values()))
    return f"{'; '.join(texts)}; {size_of(list(records.values()))}", verdict(best)


CLAIMS = [
    ("LRA-E is best at every depth", "Tables 1, 2", best_at_every_depth),
    ("Equil-Prop breaks down at 8 layers", "Tables 1, 2", equil_prop_breaks_down),
    ("DTP breaks down at 8 layers", "Tables 1, 2", breaks_down("dtp")),
    ("Update angles stay within 90°", "Figure 1a", within_90_degrees),
    ("The discrepancy bumps, then declines", "Figure 1b", discrepancy_bump),
    ("LRA-E's topmost layer separates the classes best", "Figure 2", separates_best),
    ("DTP-σ depends less on the initialisation", "Figure 3", less_dependent_on_initialisation),
    ("Derivatives can be dropped", "Section 3", derivatives_can_be_dropped),
    ("The Cauchy loss gives sparser representations", "Section 3", cauchy_is_sparser),
]
