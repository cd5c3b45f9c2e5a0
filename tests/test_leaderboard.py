"""experiments/leaderboard.py: entries that go on where they were cut off, and the page of them."""

import json
import pathlib
import shutil

import commands
import numpy as np
import pytest

from lrajax import data
from lrajax.runs import comparison, leaderboard, presets, tuning

FIELDS = {"dataset": "digits", "hidden_layers": 2, "width": 8, "epochs": 2}


OWN = "compared:RULE"  # of docs/howto/new_rule.md
ALGOS = ("backprop", OWN)
RECORD = """
import lrajax
RULE = lrajax.Rule(kolen_pollack, "My rule", "mine", fixed_feedback=False)
"""
TOP = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The entries of two rules for a small task, one of them a reader's own."""
    root = tmp_path_factory.mktemp("leaderboard")
    page = (TOP / "docs" / "howto" / "new_rule.md").read_text()
    rule = page.split("```python")[1].split("```")[0].partition("\n")[2]
    (root / "compared.py").write_text(rule + RECORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        small = tuning.TASKS["digits"]._replace(fields=FIELDS, final_seeds=2)
        patch.setitem(tuning.TASKS, "digits", small)
        for algo in ALGOS:
            comparison.enter(algo, "digits", root, data.load, trials=2)
        yield root


def entry(root, algo):
    return json.loads((comparison.folder_of(root, "digits", algo) / "entry.json").read_text())


def test_a_rule_of_ones_own_stands_among_the_others(root):
    standings = comparison.standings(root)["digits"]
    assert {standing.entry["rule"] for standing in standings} == {*ALGOS}
    assert "| My rule |" in leaderboard.page({"digits": standings})


def test_final_seeds_are_fresh_and_have_splits_of_their_own(root, monkeypatch):
    trials = (comparison.folder_of(root, "digits", OWN) / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in trials] == [0, 1]
    made = []
    monkeypatch.setattr(comparison, "final_run", lambda s, *_, **__: made.append(s) or {})
    settings = presets.resolve("rfa", **FIELDS)
    splits = []
    load = lambda name, *, valid_size, split_seed: splits.append(split_seed)  # noqa: E731
    folder = root / "seeds"
    folder.mkdir()
    list(comparison.final_runs(settings, 2, folder, load))
    assert [(s.seeds, s.split_seed) for s in made] == [((1000,), 1000), ((1001,), 1001)]
    assert splits == [1000, 1001]


def test_an_entry_that_was_cut_off_goes_on_with_the_seed_that_is_missing(root, monkeypatch):
    folder = comparison.folder_of(root, "digits", OWN)
    whole, before = entry(root, OWN), (folder / "finals.jsonl").read_text()
    (folder / "entry.json").unlink()
    (folder / "finals.jsonl").write_text(before.splitlines()[0] + "\n")
    trained = []
    final_run = comparison.final_run
    monkeypatch.setattr(
        comparison,
        "final_run",
        lambda settings, *a, **k: trained.append(settings.seeds) or final_run(settings, *a, **k),
    )
    comparison.enter(OWN, "digits", root, data.load, trials=2)
    assert trained == [(1001,)]
    seconds = {"seconds", "seconds_searched"}
    same = [
        {k: v for k, v in run.items() if k not in seconds}
        for each in (entry(root, OWN), whole)
        for run in each["runs"]
    ]
    assert same[:2] == same[2:]


def test_the_page_has_each_mean_interval_rank_and_comparison(root):
    standings = comparison.standings(root)
    page = leaderboard.page(standings)
    means = {
        algo: np.mean([run["test_error"] for run in entry(root, algo)["runs"]]) for algo in ALGOS
    }
    best = min(means, key=means.get)
    assert standings["digits"][0].entry["rule"] == best
    for standing in standings["digits"]:
        assert standing.error == pytest.approx(means[standing.entry["rule"]])
        low, high = standing.interval
        assert low <= standing.error <= high
        assert f"{standing.error:.2f} [{low:.2f}, {high:.2f}] (" in page
        against = standing.against
        if standing.entry["rule"] == "backprop":
            assert against is None
        else:
            mine = means[standing.entry["rule"]]
            assert against.difference == pytest.approx(mine - means["backprop"])


def test_the_page_has_the_costs_and_angles_of_the_cards(root):
    page = leaderboard.page(comparison.standings(root))
    lines = {line.split(" | ")[0]: line for line in page.split("## What")[1].splitlines()}
    assert lines["| Backprop"].startswith("| Backprop | 1.00 | 6 | 1.0")
    assert lines["| Backprop"].endswith(" | 0 0° → 0 0° | – |")
    mine = entry(root, OWN)["cards"]
    assert lines["| My rule"].startswith("| My rule | 1.00 | 6 | ")
    for when in ("start", "trained"):
        assert " ".join(f"{a:.0f}" for a in mine[when]["feedback_angles"]) in lines["| My rule"]


def test_a_run_without_an_error_counts_at_chance(root):
    found = entry(root, OWN)
    found["runs"][0]["test_error"] = None
    assert comparison._errors(found)[0] == 90


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 0}, "entry.json was made under version 0 of the protocol"),
        ({"trials": 3}, "different numbers of trials"),
        (
            {"settings": {"opt": "adam", "lr": 0.1, "epochs": 3}},
            r"trials, seeds and epochs, \[\(2, 2, 2\), \(2, 2, 3\)\]",
        ),
        ({"protocol": None}, "entry.json is not what was written there"),
        ({"cards": None}, "entry.json is not what was written there"),
        ({"cards": {"start": {}, "trained": {}}}, "entry.json is not what was written there"),
        ({"runs": [{"seed": 1000}]}, "entry.json is not what was written there"),
    ],
)
def test_entries_that_do_not_go_together_are_refused(root, tmp_path, changes, message):
    for algo in ALGOS:
        folder = comparison.folder_of(tmp_path, "digits", algo)
        folder.mkdir(parents=True)
        found = entry(root, algo) | (changes if algo == OWN else {})
        found = {name: value for name, value in found.items() if value is not None}
        (folder / "entry.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=message):
        comparison.standings(tmp_path)


def test_another_budget_is_refused(root):
    with pytest.raises(ValueError, match=r"trials=5: .*entry.json has 2"):
        comparison.enter(OWN, "digits", root, data.load, trials=5)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (1, "trials=1: .* has 2, and all rules"),
        (3, "finals.jsonl is of .* 2 trials of 3: delete it"),
    ],
)
def test_final_runs_of_a_search_of_another_size_are_refused(root, tmp_path, trials, message):
    folder = comparison.folder_of(root, "digits", OWN)
    copy = comparison.folder_of(tmp_path, "digits", OWN)
    shutil.copytree(folder, copy, ignore=lambda *_: ["entry.json"])
    with pytest.raises(ValueError, match=message):
        comparison.enter(OWN, "digits", tmp_path, data.load, trials=trials)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "is damaged, no JSON"),
        ("[]\n", "is not what was written there"),
        ('{"seed": 1000}\n', "is not what was written there"),
    ],
)
def test_damaged_final_runs_are_named(tmp_path, content, what):
    (tmp_path / "finals.jsonl").write_text(content)
    settings = presets.resolve("rfa", **FIELDS)
    with pytest.raises(ValueError, match=rf"finals.jsonl {what}: bring it back, or delete it"):
        list(comparison.final_runs(settings, 2, tmp_path, data.load))


def test_a_variant_that_kept_its_title_does_not_take_the_librarys_row(root):
    standings = comparison.standings(root)["digits"]
    same = {"title": standings[0].entry["title"]}
    standings = [one._replace(entry={**one.entry, **same}) for one in standings]
    page = leaderboard.overview({"digits": standings})
    assert len(page.splitlines()) == 2 + len(ALGOS)


def test_variants_are_told_apart_from_the_librarys_rule():
    assert leaderboard.title({"rule": "lra_e", "title": "LRA-E"}) == "LRA-E"
    assert leaderboard.title({"rule": "mine:v2", "title": "LRA-E"}) == "LRA-E (mine:v2)"
    assert leaderboard.title({"rule": "mine:v2", "title": "Mine"}) == "Mine"


def test_a_rule_that_cannot_be_entered_leaves_the_others_theirs(root, tmp_path, monkeypatch):
    """The command names it, writes the page and fails."""
    monkeypatch.syspath_prepend(TOP / "experiments")
    import leaderboard as command

    entered = []

    def enter(algo, *_, **__):
        entered.append(algo)
        if algo == "rfa":
            raise ValueError("activation=relu: no")

    page = tmp_path / "page.md"
    words = ["--task=digits", "--algo=rfa,dfa", f"--out_dir={root}", f"--out={page}"]
    monkeypatch.setattr(comparison, "enter", enter)
    command.FLAGS(["leaderboard.py", *words])
    with pytest.raises(SystemExit, match=r"left out for the errors above: digits/rfa$"):
        command.main()
    command.FLAGS.unparse_flags()
    assert entered == ["rfa", "dfa"]
    assert page.exists()


def test_a_rule_without_a_task_is_asked_for_one(root):
    ended = commands.run("leaderboard.py", "--algo=dfa", f"--out_dir={root}")
    assert ended.returncode == 2
    assert ended.stderr == "leaderboard.py: --algo=dfa: on which task? --task=digits, say\n"


def test_committed_presets_are_what_the_final_runs_had():
    for path in (TOP / "leaderboard").glob("*/*/entry.json"):
        settings = json.loads(path.read_text())["settings"]
        settings |= settings.pop("hyperparameters")
        for of_a_run in ("seeds", "sweep"):
            del settings[of_a_run]
        assert json.loads((path.parent / "preset.json").read_text())["settings"] == settings, path


def test_the_committed_page_is_current():
    page = leaderboard.page(comparison.standings(TOP / "leaderboard"))
    assert (TOP / "LEADERBOARD.md").read_text() == page


def test_a_page_of_no_entries_does_not_take_the_place_of_another(tmp_path):
    page = tmp_path / "LEADERBOARD.md"
    page.write_text("of before")
    ended = commands.run("leaderboard.py", f"--out_dir={tmp_path}", f"--out={page}")
    assert (ended.returncode, page.read_text()) == (2, "of before")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"leaderboard.py: --out_dir={tmp_path} holds no finished entry: name a")


def test_a_rule_that_cannot_decay_is_refused_before_the_search(root, monkeypatch):
    monkeypatch.syspath_prepend(root)
    with pytest.raises(ValueError, match="let algo name a"):
        comparison.enter("compared:kolen_pollack", "digits", root, data.load, trials=2)
