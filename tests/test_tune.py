"""lrajax/runs/tuning.py: the same search however often it is cut off, compiled once, halved."""

import errno
import json
import os

import chex
import jax
import numpy as np
import optuna
import pytest
from tqdm import tqdm

import lrajax
from lrajax import data, training
from lrajax.runs import presets, tuning
from lrajax.runs.commands import train_flags, tune

FIELDS = {"dataset": "digits", "hidden_layers": 1, "width": 8, "epochs": 4}
TRIALS = 12  # a generation, and a part of one
ONE = 100 / 150 + 1e-3  # validation example, in %: rounding may turn an answer


def search(folder, **changes):
    return tuning.Search("lra_e", data.load("digits"), FIELDS, folder, **changes)


def lines(folder):
    """What a search kept of its trials, but for the time they took."""
    every = map(json.loads, (folder / "trials.jsonl").read_text().splitlines())
    return [{name: v for name, v in line.items() if name != "seconds"} for line in every]


def settings_of(*words):
    """What `train.py` makes of these words."""
    values = train_flags.define()
    values(["train.py", *words])
    return train_flags.settings(values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    traces = []
    make_epoch = training.make_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training, "make_epoch", lambda *a, **k: traces.append(a) or make_epoch(*a, **k)
        )
        one = search(folder)
        list(one.generations(TRIALS))
        one.close()
    return folder, len(traces)


def test_a_search_compiles_once_an_optimiser(whole):
    folder, traces = whole
    assert len(lines(folder)) == TRIALS
    assert traces == len({line["opt"] for line in lines(folder)})


def test_the_better_half_goes_on(whole):
    first = lines(whole[0])[: tuning.GENERATION]
    by_length = {n: [x for x in first if len(x["valid_error"]) == n] for n in (1, 2, 4)}
    assert {n: len(group) for n, group in by_length.items()} == {1: 4, 2: 2, 4: 2}
    for shorter, longer in ((1, (2, 4)), (2, (4,))):
        left = min(min(x["valid_error"]) for x in by_length[shorter])
        # Of those that went on, what they had shown when it was decided.
        kept = [min(x["valid_error"][:shorter]) for n in longer for x in by_length[n]]
        assert max(kept) <= left


def test_trials_in_one_program_are_those_one_by_one():
    rule, dataset = lrajax.RULES["lra_e"], data.load("digits")
    program = tuning.Program(presets.resolve("lra_e", weight_decay=0.1, **FIELDS), dataset)
    lr, e_init = (np.array(values, np.float32) for values in ([0.001, 0.01, 1e38], [0.1, 1, 2]))
    values = {"lr": lr, "e_init": e_init, "beta": lr + 0.1}
    assert values.keys() <= {"lr", "weight_decay", *rule.hyperparameters}
    seeds = np.arange(3, dtype=np.uint32)

    def trained(rows):
        mine = {name: value[rows] for name, value in values.items()}
        runs = program.start(seeds[rows], mine)
        curve = []
        for _ in range(2):
            runs, errors = program.epoch(runs, mine)
            curve.append(errors)
        return runs.state.params, np.transpose(curve)

    together, curves = trained(slice(0, 3))
    assert curves[2].tolist() == [100, 100]  # it diverges, and leaves the others alone
    for row in range(2):
        alone, curve = trained(slice(row, row + 1))
        mine = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], together)
        chex.assert_trees_all_close(mine, alone, rtol=1e-3, atol=1e-5)
        assert curves[row] == pytest.approx(curve[0], abs=ONE)


def test_an_accelerator_trains_a_generation_in_a_program_an_optimiser(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    sizes, train = [], tuning.Batch.train
    monkeypatch.setattr(
        tuning.Batch,
        "train",
        lambda batch, epochs: sizes.append(len(batch._candidates)) or train(batch, epochs),
    )
    one = search(tmp_path)
    next(one.generations(TRIALS))
    one.close()
    for mine, theirs in zip(lines(tmp_path), lines(whole[0]), strict=False):
        errors = mine.pop("valid_error"), theirs.pop("valid_error")
        assert mine == theirs
        shared = min(map(len, errors))
        assert errors[0][:shared] == pytest.approx(errors[1][:shared], abs=ONE)
    opts = {line["opt"] for line in lines(tmp_path)}
    assert len(opts) == 2
    assert sum(sizes[:2]) == tuning.GENERATION
    assert sum(sizes) == 8 + 4 + 2


def test_a_search_that_was_cut_off_goes_on_as_it_would_have(whole, tmp_path, monkeypatch):
    first, told = search(tmp_path), []
    tell = first.study.tell

    def dies(*trial, **outcome):
        """In the middle of what the study is told of a generation."""
        told.append(tell(*trial, **outcome))
        if len(told) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(first.study, "tell", dies)
        with pytest.raises(KeyboardInterrupt):
            next(first.generations(TRIALS))
    with pytest.raises(ValueError, match="in use by another process"):
        search(tmp_path)
    first.close()
    # It dies again while the next generation is asked for, and leaves half a line.
    second = search(tmp_path)
    second.study.ask()
    second.close()
    with open(tmp_path / "journal.log", "a") as file:
        file.write('{"op_code": 4, "wor')
    (tmp_path / "journal.log.lock").symlink_to("nowhere")  # of Optuna's, which waits for it
    second = search(tmp_path)
    list(second.generations(TRIALS))
    assert lines(tmp_path) == lines(whole[0])
    presets = [json.loads((f / "preset.json").read_text()) for f in (tmp_path, whole[0])]
    assert presets[0] == presets[1]
    assert list(second.generations(TRIALS)) == []
    second.close()


def test_a_folder_that_can_no_more_be_written_is_named(tmp_path, monkeypatch):
    one = search(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # the journal's and ours
    with tqdm(disable=True) as bar, pytest.raises(OSError, match="No space left") as error:
        one.follow(bar, 1)
    assert error.value.filename == str(tmp_path)
    one.close()


@pytest.mark.parametrize("storage", ["shared.log", "sqlite:///shared.db"])
def test_searches_that_share_a_storage_share_the_trials(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = (search(tmp_path / name, storage=storage) for name in ("one", "other"))
    for each, asked in [(each, each._ask(2)) for each in (one, other)]:
        each._train(asked)
    list(one.generations(6))
    assert list(other.generations(6)) == []
    found = lines(tmp_path / "one")
    assert [line["number"] for line in found] == list(range(6))
    assert len({line["weight_decay"] for line in found}) == 6
    assert lines(tmp_path / "other") == found
    for each in (one, other):
        each.close()


def test_a_database_that_another_process_makes_meanwhile_is_used(tmp_path, monkeypatch):
    create, tries = optuna.create_study, []

    def late(**how):
        tries.append(how)
        if len(tries) == 1:
            raise RuntimeError("table studies already exists")
        return create(**how)

    monkeypatch.setattr(optuna, "create_study", late)
    one = search(tmp_path, storage=f"sqlite:///{tmp_path}/shared.db")
    assert one.ended == []
    one.close()


def test_a_last_generation_that_was_not_written_is_written_by_the_same_command(whole, tmp_path):
    (tmp_path / "journal.log").write_bytes((whole[0] / "journal.log").read_bytes())
    one = search(tmp_path)
    assert list(one.generations(TRIALS)) == []
    assert lines(tmp_path) == lines(whole[0])
    one.close()


@pytest.mark.parametrize(
    ("storage", "journal", "words"),
    [
        ("nonsense://", "", "storage=nonsense:// cannot be used"),
        ("/nowhere/x.log", "", "storage=/nowhere/x.log cannot be used"),
        ("sqlite:////nowhere/x", "", "storage=sqlite:////nowhere/x cannot be used"),
        (None, "nonsense\n{}\n", "journal.log is damaged: bring it back, or delete it"),
        (None, '{"op_code":0}\n', "journal.log is damaged: bring it back, or delete it"),
    ],
)
def test_what_no_search_can_be_kept_in_is_named(storage, journal, words, tmp_path):
    (tmp_path / "journal.log").write_text(journal)
    with pytest.raises(ValueError, match=words):
        search(tmp_path, storage=storage)


@pytest.mark.parametrize("content", [b"SQLite format 3\0\n and more", b"a line\nand half of one"])
def test_a_file_that_is_no_journal_is_left_as_it_was(content, tmp_path):
    (tmp_path / "study.db").write_bytes(content)
    storage = str(tmp_path / "study.db")
    with pytest.raises(ValueError, match=r"choose another .*sqlite:///FILE \(it is no journal"):
        search(tmp_path, storage=storage)
    assert (tmp_path / "study.db").read_bytes() == content


@pytest.mark.parametrize(
    ("algo", "fields", "seed", "message"),
    [
        (
            "dfa",
            {},
            0,
            r"^algo=dfa: .*preset\.json is of a search with lra_e: choose another out_d",
        ),
        ("lra_e", {"epochs": 2}, 0, r"^epochs=2: .*preset\.json is of a search with 4"),
        ("lra_e", {}, 1, r"^seed=1: the search in .* was begun with 0: choose another out_dir"),
    ],
)
def test_a_folder_keeps_the_search_that_it_has(algo, fields, seed, message, whole):
    with pytest.raises(ValueError, match=message):
        tuning.Search(algo, data.load("digits"), {**FIELDS, **fields}, whole[0], seed=seed)


def test_units_that_are_clipped_are_searched_without_the_tasks_activation(tmp_path):
    fields = {**FIELDS, "activation": "relu"}
    for algo, activation in (("equil_prop", None), ("dfa", "relu")):
        one = tuning.Search(algo, data.load("digits"), fields, tmp_path / algo)
        assert one.fields.get("activation") == activation
        one.close()


def test_train_takes_the_preset_and_other_flags_before_it(whole):
    path = whole[0] / "preset.json"
    settings = settings_of("--algo=lra_e", f"--preset={path}", "--beta=0.5", "--epochs=2")
    chosen = json.loads(path.read_text())["settings"]
    assert (settings.lr, settings.opt) == (chosen["lr"], chosen["opt"])
    assert settings.weight_decay == chosen["weight_decay"]
    assert settings.hyperparameters["gamma"] == chosen["gamma"]
    assert settings.hyperparameters["w_init"] == chosen["w_init"]
    assert settings.hyperparameters["beta"] == 0.5
    best = min(min(line["valid_error"]) for line in lines(whole[0]))
    assert json.loads(path.read_text())["valid_error"] == pytest.approx(best)


def test_a_preset_outlives_a_change_of_the_table(whole, tmp_path, monkeypatch):
    path, old = whole[0] / "preset.json", tmp_path / "old.json"
    chosen = json.loads(path.read_text())["settings"]
    before = settings_of("--algo=lra_e", f"--preset={path}")
    assert (before.width, before.epochs, before.dataset) == (8, 4, "digits")
    # What presets had before they held everything.
    few = {"algo": "lra_e", **{name: chosen[name] for name in ("opt", "lr", "gamma", "w_init")}}
    old.write_text(json.dumps({"settings": few}))
    changed = {"activation": "relu", "batch_size": 20, "epochs": 3, "reduction": "mean"}
    monkeypatch.setitem(presets.TABLE, presets.Case("lra_e", opt=before.opt), changed)
    assert settings_of("--algo=lra_e", f"--preset={path}") == before
    after = settings_of("--algo=lra_e", f"--preset={old}")
    assert (after.lr, after.hyperparameters["gamma"]) == (chosen["lr"], chosen["gamma"])
    assert (after.epochs, after.activation, after.width) == (3, "relu", 256)


def test_another_network_has_its_own_sizes(whole):
    path = whole[0] / "preset.json"
    settings = settings_of("--algo=lra_e", f"--preset={path}", "--network=lenet")
    assert (settings.hidden_layers, settings.width, settings.batch_size) == (None, 6, 50)


def test_a_preset_of_another_rule_or_none_is_refused(whole, tmp_path):
    for words, message in (
        (["--algo=dfa", f"--preset={whole[0] / 'preset.json'}"], "preset=.* is of lra_e: write"),
        ([f"--preset={tmp_path / 'none'}"], "preset=.*none is no preset of lrajax tune"),
    ):
        with pytest.raises(ValueError, match=message):
            settings_of(*words)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"seeds": [3]}, "no search chooses seeds: drop it"),
        ({"epochs": 1.5}, "--epochs cannot be 1.5: drop it"),
        ({"beta": 0.1, "mix": [1.0]}, "no search chooses mix: drop it"),
        ({"lr": "x"}, "--lr cannot be x: drop it"),
        ({"weight_decay": None}, "--weight_decay cannot be None: drop it"),
    ],
)
def test_what_no_search_chooses_is_refused(chosen, message, tmp_path):
    path = tmp_path / "preset.json"
    path.write_text(json.dumps({"settings": {"algo": "lra_e", **chosen}}))
    with pytest.raises(ValueError, match=f"^preset={path}: {message}$"):
        settings_of(f"--preset={path}")


def test_every_range_holds_the_default():
    for rule in lrajax.RULES.values():
        for name, (low, high) in rule.traced.items():
            assert 0 < low <= rule.hyperparameters[name].default <= high, (rule.name, name)


def test_a_search_has_the_trials_of_its_task_unless_told(tmp_path, monkeypatch):
    monkeypatch.setitem(tuning.TASKS, "digits", tuning.Task("", {**FIELDS, "epochs": 1}, trials=2))
    for words, expected in (([], 2), (["--trials=1"], 1)):
        folder = tmp_path / str(expected)
        tune.FLAGS(["tune", f"--out_dir={folder}", *words])
        tune.main()
        assert len(lines(folder)) == expected
    tune.FLAGS.unparse_flags()
