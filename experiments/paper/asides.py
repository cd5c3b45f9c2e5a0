"""What the paper says in passing, against recorded results: rows of the table of claims."""

import numpy as np

from lrajax import RULES
from lrajax.runs.records import seeds_in_words
from paper import cells, statements
from paper.claims import (
    FAILS,
    HOLDS,
    NOT_ESTABLISHED,
    PART,
    Evidence,
    clearly_lower,
    errors_of,
    size_of,
    spread_of,
    too_few,
    verdict,
)
from paper.products import in_sequence


def found(results, target: str, names: list[str]) -> list[dict] | None:
    """The records of some cells, None while one is missing or has a single seed, and no spread."""
    records = [results.get(target, {}).get(name) for name in names]
    return None if None in records or too_few(records) else records


def tests(records: list[dict]) -> list[np.ndarray]:
    """The test errors of each record's seeds."""
    return [errors_of(record) for record in records]


def named(names, errors) -> str:
    """Test errors with their names."""
    return ", ".join(f"{n} {spread_of(e)} %" for n, e in zip(names, errors, strict=True))


def steps_of(results, name: str) -> dict[str, np.ndarray] | None:
    """Figure 1's measures by the step: [moments, ...], mean over the seeds."""
    record = results.get("steps", {}).get(name)
    if record is None:
        return None
    measured = {k: v for k, v in record["final"]["steps"].items() if k != "every"}
    return {k: np.asarray(v, float).mean(axis=0) for k, v in measured.items()}


def low_first_angle(results) -> Evidence:
    """LRA-E's angle to backprop starts low and stays: hidden layers, by the step."""
    texts, checks = [], []
    for name, scale in (("lra_e-small_e", "0.05"), ("lra_e", "0.2236")):
        values = steps_of(results, name)
        if values is None:
            return None
        hidden, overall = values["hidden_angle"], values["angle"]
        texts.append(
            f"E's σ = {scale}: hidden layers {hidden[0]:.0f}° at the start, {hidden.max():.0f}° at "
            f"most, {hidden[-1]:.0f}° after 3 epochs (with the output's layer {overall[0]:.0f}°, "
            f"{overall.max():.0f}°, {overall[-1]:.0f}°)"
        )
        checks.append(hidden[0] < hidden[-1] and np.ptp(hidden) < 10)
    return "; ".join(texts), verdict(checks)


def output_loss_falls(results) -> Evidence:
    """V_L under LRA-E, smoothed over five looks, never rises by more than a tenth."""
    texts, checks = [], []
    for name, scale in (("lra_e", "0.2236"), ("lra_e-small_e", "0.05")):
        values = steps_of(results, name)
        if values is None:
            return None
        loss = np.convolve(values["output_loss"], np.ones(5) / 5, "valid")
        rise = (loss / np.minimum.accumulate(loss)).max() - 1
        texts.append(
            f"E's σ = {scale}: {loss[0]:.2f} to {loss[-1]:.2f}, rises by {rise:.0%} at most"
        )
        checks.append(loss[-1] == loss.min() or rise < 0.1)
    return "validation V_L over 3 epochs by 20 steps, " + "; ".join(texts), verdict(checks)


def transpose(results) -> Evidence:
    """The angle between E and Wᵀ, from the start on."""
    values = steps_of(results, "lra_e")
    if values is None:
        return None
    angles = values["feedback_angles"]
    before, after = (" ".join(f"{a:.0f}°" for a in row) for row in (angles[0], angles[-1]))
    text = f"between E and Wᵀ by layer {before} at the start, {after} after 3 epochs"
    return text, verdict([bool((angles[-1] < 45).all()), bool((angles[-1] < angles[0]).all())])


def adapts(results) -> Evidence:
    """The lowest σ of 8 layers over training, under both readings."""
    texts, moved, seeds = [], {}, ""
    for name in ("target", "corrupted"):
        record = results.get("sigma", {}).get(name)
        if record is None:
            return None
        sigma = np.asarray(record["final"]["steps"]["sigma"], float).mean(axis=0)[:, 0]
        moved[name] = sigma.max() / sigma.min()
        texts.append(f"{name} {sigma[0]:.4f} at the start, {sigma.min():.4f} at least")
        seeds = seeds_in_words(len(record["settings"]["seeds"]))
    text = f"magnitude of the lowest σ of 8 layers over an epoch: {'; '.join(texts)}; {seeds}"
    return text, verdict([moved["target"] > 2])


def growth(results) -> Evidence:
    """Matrix products of finding the targets, by the number of weight layers."""
    del results
    counts = {name: [in_sequence(name, depth) for depth in (5, 6, 9)] for name in ("lra_e", "dtp")}
    slopes = {name: c[1] - c[0] for name, c in counts.items()}
    text = ", ".join(
        f"{RULES[name].title} {' / '.join(map(str, c))} at L = 5, 6, 9 (+{slopes[name]} a layer)"
        for name, c in counts.items()
    )
    printed = slopes == {"lra_e": 2, "dtp": 5}
    return f"counted in the traced program: {text}; printed +2 and +5", HOLDS if printed else FAILS


def faster_than_dtp(results) -> Evidence:
    """Seconds of a seed of 100 epochs at 8 layers."""
    texts, ratios = [], []
    for table in cells.TABLES.values():
        records = found(results, table, ["lra_e-8", "dtp-8"])
        if records is None:
            return None
        ours, theirs = (
            np.median([p["seconds"] / len(p["seeds"]) for p in r["parts"] if p["device"] == "cpu"])
            for r in records
        )
        ratios.append(theirs / ours)
        texts.append(f"{ours:.0f} s against {theirs:.0f} s")
    text = f"a seed of 100 epochs at 8 layers on a CPU, not one sitting: {'; '.join(texts)}"
    return text, verdict([ratio > bound for ratio in ratios for bound in (1.2, 2)])


def collapses(results) -> Evidence:
    """Whether DTP's validation error, once low, more than doubles later."""
    texts, checks = [], []
    for dataset, table in cells.TABLES.items():
        for depth in (5, 8):
            records = found(results, table, [f"dtp-{depth}"])
            if records is None:
                return None
            curve = np.asarray(records[0]["curves"]["valid_error"], float).mean(axis=1)
            later = curve[curve.argmin() :].max()
            texts.append(
                f"{dataset} {depth}: {curve.min():.2f} % at best, {later:.2f} % at worst then"
            )
            checks.append(later > 2 * curve.min())
    return f"validation error over 100 epochs, {'; '.join(texts)}", verdict(checks)


def struggles_from_256(results) -> Evidence:
    """DTP with 7 hidden layers by width."""
    records = found(results, "widths", [f"dtp-{width}" for width in statements.WIDTHS])
    if records is None:
        return None
    errors = tests(records)
    text = f"7 layers, MNIST: {named(statements.WIDTHS, errors)}; {size_of(records)}"
    return text, verdict([max(errors[1].mean(), errors[2].mean()) > 2 * errors[0].mean()])


def optimisers_generalise(results) -> Evidence:
    """LRA-E under Adam and RMSprop against SGD, Table 3."""
    texts, checks = [], []
    for dataset, table in cells.TABLES.items():
        sgd = results[table].get("lra_e-3")
        for opt in ("adam", "rmsprop"):
            other = results["table3"].get(f"{dataset}-{opt}")
            if sgd is None or other is None:
                return None
            errors = tests([other, sgd])
            checks.append(clearly_lower(*errors))
            texts.append(f"{dataset} {opt} {spread_of(errors[0])} (sgd {spread_of(errors[1])})")
    return f"test error in %, {'; '.join(texts)}", verdict(checks)


def nearly_as_well(results) -> Evidence:
    """DTP-σ beside LRA-E; its training error."""
    texts, near, memorised = [], [], []
    for dataset, table in cells.TABLES.items():
        for depth in cells.DEPTHS:
            names = [f"dtp_sigma-{depth}", f"lra_e-{depth}"]
            records = found(results, table, names)
            if records is None:
                return None
            ours, lra_e = tests(records)
            near.append(ours.mean() < 1.1 * lra_e.mean())
            memorised.append(errors_of(records[0], "train_error").mean() < 0.005)
            texts.append(f"{dataset} {depth}: {ours.mean():.2f} and {lra_e.mean():.2f} %")
    text = (
        f"test error within a tenth of LRA-E's in {sum(near)} of 6 ({'; '.join(texts)}); training "
        f"error 0.00 in {sum(memorised)} of 6"
    )
    return text, verdict([*near, *memorised])


def glorot_is_best(results) -> Evidence:
    """Feedback alignment from three initialisations, digits."""
    texts, checks = [], []
    inits = [init.partition(":")[0] for init in statements.FEEDBACK_INITS]
    for algo in ("rfa", "dfa"):
        records = found(results, "digits", [f"{algo}-{init}" for init in inits])
        if records is None:
            return None
        errors = tests(records)
        texts.append(f"{RULES[algo].title}: {named(inits, errors)}")
        checks.append(all(clearly_lower(errors[0], other) for other in errors[1:]))
    return f"digits, {'; '.join(texts)}", verdict(checks)


def unstable_under_sgd(results) -> Evidence:
    """DTP under SGD, at the λ of lowest validation error, against RMSprop, digits."""
    names = ["dtp-sgd-0.01", "dtp-sgd-0.003", "dtp-sgd-0.001", "dtp-rmsprop-0.001"]
    records = found(results, "digits", names)
    if records is None:
        return None
    best = min(records[:-1], key=lambda record: record["summary"]["valid_error_mean"])
    sgd, rmsprop = tests([best, records[-1]])
    return f"digits, λ: {named(names, tests(records))}", verdict([clearly_lower(rmsprop, sgd)])


def little_tuning(results) -> Evidence:
    """LRA-E over two decades of β and over γ, digits."""
    names = [f"beta-{b:g}" for b in statements.BETAS] + [f"gamma-{g:g}" for g in statements.GAMMAS]
    records = found(results, "digits", names)
    if records is None:
        return None
    errors = dict(zip(names, tests(records), strict=True))
    reference = errors["beta-0.1"]
    text = f"digits (γ = 1; β = 0.1): {named(names, errors.values())}"
    return text, verdict([not clearly_lower(reference, error) for error in errors.values()])


def gamma_below_one(results) -> Evidence:
    """γ < 1 against the authors' 1, digits."""
    records = found(results, "digits", ["gamma-0.9", "gamma-0.5", "beta-0.1"])
    if records is None:
        return None
    *below, one = tests(records)
    text = f"digits: {named(('γ = 0.9', '0.5', '1'), [*below, one])}"
    return text, verdict([clearly_lower(error, one) for error in below])


def literal_error(results) -> Evidence:
    """The output's error as printed against z - y: a negative control."""
    records = found(results, "digits", ["literal"])
    if records is None:
        return None
    variants = records[0]["final"]["literal"]
    errors = [errors_of(records[0]), *(np.asarray(e, float) for e in variants.values())]
    text = f"digits: {named(('z - y', '-y/z', '-y/z ⊗ z(1 - z)'), errors)}"
    return text, verdict([error.mean() < 2 * errors[0].mean() for error in errors[1:]])


def greedy_is_worse(results) -> Evidence:
    """Layers trained one after another by backprop, against LRA-E, digits."""
    records = found(results, "digits", ["greedy"])
    if records is None:
        return None
    layers = [np.asarray(e, float) for e in records[0]["final"]["greedy"].values()]
    whole = errors_of(records[0])
    labels = ("LRA-E", *(f"{n} greedy" for n in records[0]["final"]["greedy"]))
    text = f"digits, layers: {named(labels, [whole, *layers])}"
    if abs(whole.mean() - layers[-1].mean()) <= whole.std(ddof=1) + layers[-1].std(ddof=1):
        return text, NOT_ESTABLISHED
    return text, verdict([clearly_lower(whole, layers[-1])])


def monotone(results) -> Evidence:
    """V2 with a sine in the hidden layers against V1: a negative control."""
    kinds = ["tanh", *(f"sine_{scale}" for scale in statements.SINE_SCALES)]
    names = [f"{kind}-{version}" for kind in kinds for version in ("v1", "v2")]
    records = found(results, "digits", names)
    if records is None:
        return None
    errors = dict(zip(names, tests(records), strict=True))
    text = f"digits, tanh and the sine from W of two scales: {named(names, errors.values())}"
    checks = [clearly_lower(errors[f"{kind}-v1"], errors[f"{kind}-v2"]) for kind in kinds[1:]]
    return text, verdict(checks)


def boosted_trees(results) -> Evidence:
    """Stacked trees by LRA-E against target propagation's: accuracy and seconds."""
    records = results.get("boosted_trees", {})
    if not records:
        return None
    texts, checks = [], []
    for name, record in records.items():
        rules = record["rules"]
        errors = {rule: 100 - np.asarray(runs["test"]) for rule, runs in rules.items()}
        seconds = {rule: float(np.median(runs["seconds"])) for rule, runs in rules.items()}
        ours, theirs, frozen = (errors[n] for n in ("lra_e", "target_propagation", "frozen"))
        checks += [
            not clearly_lower(theirs, ours),
            clearly_lower(ours, frozen),
            seconds["lra_e"] < seconds["target_propagation"],
        ]
        texts.append(
            f"{name} {spread_of(ours)} (target propagation {spread_of(theirs)}, layers frozen "
            f"{spread_of(frozen)}, one ensemble {spread_of(errors['ensemble'])}), "
            f"{seconds['lra_e']:.1f} against {seconds['target_propagation']:.1f} s"
        )
    return f"test error in %: {'; '.join(texts)}", verdict(checks)


def attacked(results, kinds: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]] | None:
    """Errors under attacks whose names begin so, by rule."""
    records = results.get("robustness", {})
    if len(records) < 3:
        return None
    return {
        name: {
            attack: np.asarray(errors, float)
            for attack, errors in record["final"]["attacked"].items()
            if attack.startswith(kinds)
        }
        for name, record in records.items()
    }


def compared_under_attack(results, rule: str, kinds: tuple[str, ...]) -> Evidence:
    """A rule against backprop, attack by attack: lower, higher or within the spread."""
    errors = attacked(results, kinds)
    if errors is None:
        return None
    pairs = [(errors[rule][attack], errors["backprop"][attack]) for attack in errors[rule]]
    better = [clearly_lower(ours, theirs) for ours, theirs in pairs]
    worse = [clearly_lower(theirs, ours) for ours, theirs in pairs]
    text = "; ".join(
        f"{attack}: {spread_of(ours)} (backprop {spread_of(theirs)}) %"
        for attack, (ours, theirs) in zip(errors[rule], pairs, strict=True)
    )
    if not any(better) and not any(worse):
        return text, NOT_ESTABLISHED
    return text, HOLDS if all(better) else PART if any(better) else FAILS


def other_networks(results) -> Evidence:
    """LRA-E on locally connected and residual networks, beside backprop."""
    texts, checks = [], []
    for network in ("locally_connected", "resnet_small", "lenet"):
        records = found(results, "networks", [f"lra_e-{network}", f"backprop-{network}"])
        if records is None:
            return None
        ours, theirs = tests(records)
        texts.append(f"{network} {spread_of(ours)} (backprop {spread_of(theirs)}) %")
        checks.append(ours.mean() < 1.1 * theirs.mean())
    return f"Fashion-MNIST, V2, Adam, weight decay: {'; '.join(texts)}", verdict(checks)


CLAIMS = [
    ("A stable, low first angle", "Figure 1a", low_first_angle),
    ("V_L falls continually", "Figure 1b", output_loss_falls),
    ("E becomes an approximate transpose", "Section 3", transpose),
    ("σ adapts (equation 11 as printed)", "Section 3", adapts),
    ("Products grow as 2(L - 1) against 4(L - 3) + L", "Section 3", growth),
    ("LRA-E is much faster than DTP", "Section 4", faster_than_dtp),
    ("DTP is promising at first, then collapses", "Section 4", collapses),
    ("DTP struggles from width 256, 7 × 240 works", "Section 4", struggles_from_256),
    ("DTP is unstable under SGD", "Section 4", unstable_under_sgd),
    ("DTP-σ does nearly as well as LRA-E, training error 0.00", "Tables 1, 2", nearly_as_well),
    ("Other optimisers generalise better than SGD", "Table 3", optimisers_generalise),
    ("Feedback alignment works best with Glorot's scheme", "Section 4", glorot_is_best),
    ("β needs minor tuning", "Section 3", little_tuning),
    ("γ should be below 1", "Section 3", gamma_below_one),
    ("The output's error unit is -y/z (control)", "Equation 2", literal_error),
    ("V2 needs a monotone activation (control)", "Section 3", monotone),
    ("Greedy layer-wise training is worse", "Section 3", greedy_is_worse),
    (
        "DTP-σ's noise gives more robust representations",
        "Section 3",
        lambda results: compared_under_attack(results, "dtp_sigma", ("noise",)),
    ),
    (
        "LRA-E withstands adversarial samples",
        "Section 5",
        lambda results: compared_under_attack(results, "lra_e", ("fgsm", "pgd")),
    ),
    (
        "LRA-E trains stacked boosted trees, faster than target propagation",
        "Section 5",
        boosted_trees,
    ),
    ("Locally connected and residual nets train", "Section 5", other_networks),
]
