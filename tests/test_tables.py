"""Tables of runs: a row a setting, the best marked, in every format the same numbers."""

import csv
import io

import pytest

from lrajax.runs import presets, tables


def rows(algo="lra_e", errors=(), sweep=None, seeds=(0, 1), folder="", **settings):
    """Rows whose errors in % are given by run, validation first; test errors are 1 more."""
    settings = presets.resolve(algo, sweep=sweep or {}, seeds=seeds, **settings)
    valid = list(errors)
    test = [None if error is None else error + 1 for error in valid]
    summary = {"train_error": valid, "valid_error": valid, "test_error": test}
    return tables.rows(settings, summary if errors else None, folder), summary, settings


SWEEP = {"lr": (0.01, 0.1), "beta": (0.5, 0.1)}
# In the order of `Settings.runs`: seed, then lr, then beta.
ERRORS = [8.0, 9.0, 5.0, None, 10.0, 9.0, 7.0, 4.0]


@pytest.fixture
def sweep():
    return rows(errors=ERRORS, sweep=SWEEP)


def test_a_sweep_has_a_row_a_setting_ascending_with_its_own_seeds(sweep):
    found, _, _ = sweep
    assert [(row.about["lr"], row.about["beta"]) for row in found] == [
        (0.01, 0.1),
        (0.01, 0.5),
        (0.1, 0.1),
        (0.1, 0.5),
    ]
    assert [row.errors["valid_error"] for row in found] == [[9, 9], [8, 10], [None, 4], [5, 7]]
    assert [row.members for row in found] == [[1, 5], [0, 4], [3, 7], [2, 6]]
    assert all(row.seeds == [0, 1] for row in found)
    assert tables.telling(found) == ["lr", "beta"]
    assert tables.labels(found)[0] == "lr 0.01, beta 0.1"


def test_the_best_has_the_lowest_mean_validation_error_of_whole_settings(sweep):
    """The lowest single error belongs to a setting of which the other seed diverged."""
    found, summary, settings = sweep
    assert tables.best(found) == [3]
    (verdict,) = tables.verdicts(found)
    assert "lr 0.1, beta 0.5, with 6.00 ± 1.41 % (test: 7.00 ± 1.41 %)" in verdict
    # 9 - 5 and 9 - 7, seed by seed; that of lr 0.01, beta 0.5, is as low, and comes later.
    assert "3.00 ± 1.41 points (seed by seed) ahead of lr 0.01, beta 0.1." in verdict
    head, *lines, said = tables.of_result(settings, summary).splitlines()
    assert head.split() == ["lr", "beta", "train", "%", "valid", "%", "test", "%"]
    assert [line.endswith("best") for line in lines] == [False, False, False, True]
    assert "1 of 2 diverged" in lines[2]
    assert said == verdict


def test_one_setting_keeps_a_line_a_seed():
    _, summary, settings = rows(errors=[1.0, 2.0])
    summary |= {
        f"{name}_{moment}": 0.0 for name in tables.ERROR_HEADS for moment in ("mean", "std")
    }
    summary |= {"runs": settings.runs(), "best_epoch": [3, 4]}
    lines = tables.of_result(settings, summary).splitlines()
    assert [line.split()[0] for line in lines] == ["seed", "0", "1", "mean", "std"]


def test_rules_are_told_apart_by_their_titles_and_hyperparameters_within_a_rule():
    lra, _, _ = rows(errors=[2.0, 2.0])
    dtp, _, _ = rows("dtp_sigma", errors=[3.0, 3.0])
    found = [*lra, *dtp]
    assert tables.labels(found) == ["LRA-E", "DTP-σ"]
    assert tables.telling(found) == ["algo", "opt", "lr"]  # not β, which DTP-σ has not
    other, _, _ = rows(errors=[4.0, 4.0], beta=0.2)
    assert tables.telling([*found, *other]) == ["algo", "opt", "lr", "beta"]
    assert tables.labels([*lra, *other]) == ["beta 0.1", "beta 0.2"]


def test_the_same_settings_are_told_apart_by_their_folders():
    found = [rows(errors=[error] * 2, folder=name)[0][0] for name, error in (("a", 1), ("b", 2))]
    assert tables.labels(found) == ["a", "b"]


def test_other_data_sets_have_a_best_of_their_own():
    several = {"digits": [2.0, 4.0], "mnist": [1.0, 3.0]}
    found = [
        row
        for name, errors in several.items()
        for row in rows(errors=errors, seeds=(0,), sweep={"lr": (0.1, 0.2)}, dataset=name)[0]
    ]
    assert tables.best(found) == tables.chosen(found) == [0, 2]
    assert (tables.best(found[1:]), tables.chosen(found[1:])) == ([0, 1], [1])
    first, second = tables.verdicts(found)
    assert "on digits" in first
    assert "on mnist" in second
    assert "2.00 points ahead" in second  # one seed: no deviation


def test_files_have_the_same_numbers_and_mark_the_best(sweep):
    found, _, _ = sweep
    read = list(csv.DictReader(io.StringIO(tables.to_csv(found))))
    assert [float(row["beta"]) for row in read] == [0.1, 0.5, 0.1, 0.5]
    assert [row["valid_error_mean"] for row in read] == ["9.0", "9.0", "", "6.0"]
    assert [row["best"] for row in read] == ["", "", "", "yes"]
    assert read[0]["algo"] == "lra_e"

    _, ruler, *lines = tables.to_markdown(found).splitlines()
    assert ruler == "| ---: | ---: | ---: | ---: | ---: |"
    assert lines[3] == "| 0.1 | 0.5 | **6.00 ± 1.41** | **6.00 ± 1.41** | **7.00 ± 1.41** |"

    latex = tables.to_latex(found).splitlines()
    assert r"\begin{tabular}{rrrrr}" in latex
    assert r"0.01 & 0.1 & $9.00 \pm 0.00$ & $9.00 \pm 0.00$ & $10.00 \pm 0.00$ \\" in latex
    assert sum(r"\bfseries" in line for line in latex) == 1


def test_latex_takes_what_it_would_stumble_over():
    dtp, _, _ = rows("dtp_sigma", errors=[3.0, 3.0], folder="a_b & c")
    again, _, _ = rows("dtp_sigma", folder="50 %")
    body = tables.to_latex([*dtp, *again])
    assert r"a\_b \& c & " in body
    assert r"50 \% & unfinished" in body
    other, _, _ = rows(errors=[1.0, 1.0])
    assert r"DTP-$\sigma$ & " in tables.to_latex([*dtp, *other])
