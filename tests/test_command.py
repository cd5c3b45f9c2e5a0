"""The command, in this process: what it does with a folder, with a terminal, with its words."""

import errno
import importlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import lrajax_command
import numpy as np
import pytest

import lrajax
from lrajax import __main__ as entry
from lrajax import checkpoint
from lrajax.runs import placement
from lrajax.runs.commands import commandline, report, train, train_flags, tune

SMALL = ("--width=4", "--hidden_layers=1", "--algo=dtp_sigma")
TIMING = ("seconds", "examples_per_second")


class Deaf:
    """In place of `Interruption`: the tests' own process keeps its signal handlers."""

    def __init__(self, say):
        pass

    def begin(self):
        pass

    def signal(self):
        return 0


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `lrajax train` with the words: status, stdout, stderr."""
    monkeypatch.setattr(train, "Interruption", Deaf)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lrajax", "train", *words])
        monkeypatch.setattr(lrajax_command, "listen", lambda: None)
        with pytest.raises(SystemExit) as end:
            entry.main()
        return end.value.code, *capsys.readouterr()

    return run


def files(folder):
    """Everything in a folder that must not depend on how it came about."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in TIMING} for line in metrics]
    params = {k: v.tobytes() for k, v in np.load(folder / "best_params.npz").items()}
    settings = json.loads((folder / "config.json").read_text())["settings"]
    return metrics, params, settings, json.loads((folder / "summary.json").read_text())


def test_a_finished_run_given_again_prints_its_table(command, tmp_path):
    words = (*SMALL, "--epochs=1", f"--out_dir={tmp_path}")
    status, table, _ = command(*words)
    assert status == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert command(*words) == (0, table, "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_more_epochs_and_more_seeds_give_the_run_made_so_from_the_start(command, tmp_path):
    grown, straight = (f"--out_dir={tmp_path / name}" for name in ("grown", "straight"))
    assert command(*SMALL, "--epochs=1", grown)[0] == 0
    status, _, said = command(*SMALL, "--epochs=3", grown, "--checkpoint_every=2")
    assert status == 0
    assert "goes on after epoch 1 of 3" in said
    assert command(*SMALL, "--epochs=3", straight)[0] == 0
    assert files(tmp_path / "grown") == files(tmp_path / "straight")

    status, _, said = command(*SMALL, "--epochs=3", "--num_seeds=2", grown)
    assert status == 0
    assert "more seeds train all of them from the start; moved to" in said
    assert files(tmp_path / "grown" / "1_seed") == files(tmp_path / "straight")
    two = f"--out_dir={tmp_path / 'two'}"
    assert command(*SMALL, "--epochs=3", "--num_seeds=2", two)[0] == 0
    assert files(tmp_path / "grown") == files(tmp_path / "two")

    for words, complaint in (
        (("--epochs=2", "--num_seeds=2"), "--epochs=2 is less than the 3 that"),
        (("--epochs=3",), "a different run (seeds differ)"),
        (("--epochs=3", "--num_seeds=2", "--alpha=0.1"), "(hyperparameters differ)"),
    ):
        status, _, said = command(*SMALL, *words, grown)
        assert status == 2
        assert said.startswith("lrajax train: --")
        assert complaint in said
        assert len(said.splitlines()) == 1
    assert files(tmp_path / "grown") == files(tmp_path / "two")


def test_a_rate_that_falls_over_the_run_does_not_go_on(command, tmp_path):
    words = (*SMALL, "--schedule=cosine", f"--out_dir={tmp_path}")
    assert command(*words, "--epochs=1")[0] == 0
    status, _, said = command(*words, "--epochs=2")
    assert status == 2
    assert "schedule=cosine falls to 0 over a run's own epochs" in said


def test_a_home_folder_is_expanded(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command(*SMALL, "--epochs=1", "--out_dir=~/run")[0] == 0
    assert (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "~").exists()
    assert report.path("~/x") == tmp_path / "x"


EXPERIMENTS = ("reproduce", "results", "autoencode", "boosted_trees", "leaderboard")


@pytest.mark.parametrize("name", ["train", "tune", *EXPERIMENTS])
def test_every_flag_of_a_path_expands_a_home_folder(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    if name in EXPERIMENTS:
        monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "experiments")
        values = importlib.import_module(name).FLAGS
    else:
        values = {"train": train_flags.define(), "tune": tune.FLAGS}[name]
    # `dataset` may be a name; lrajax.data expands it where it is none.
    paths = [
        flag
        for flag in map(values.__getitem__, values)
        if re.search(r"_dir$|\b(folder|file)\b", f"{flag.help} {flag.name}")
        and flag.name not in ("dataset", "flagfile")
    ]
    assert {"data_dir", "out_dir"} <= {flag.name for flag in paths} or name == "results"
    assert paths
    for flag in paths:
        assert flag.parser.parse("~/x") == "/home/me/x", flag.name
        assert flag.parser.parse("a/~") == "a/~"
        assert flag.parser.parse("~no_such_user/x") == "~no_such_user/x"


def test_report_expands_every_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    nothing = report.contents.Contents([], [], [], [])
    seen = []
    monkeypatch.setattr(report.reading, "Folder", lambda path, name: path)

    def gather(folders, data_dir):
        seen.extend([*folders, data_dir])
        return nothing

    monkeypatch.setattr(report.contents, "gather", gather)
    monkeypatch.setattr(report.page, "write", lambda shown, to: seen.append(to))
    monkeypatch.setattr(report, "write_tensorboard", lambda series, folder: seen.append(folder))
    report.run(["~/run", "--data_dir=~/data", "--to=~/to", "--tensorboard=~/board"])
    assert list(map(str, seen)) == [f"{tmp_path}/{part}" for part in ("run", "data", "to", "board")]
    assert capsys.readouterr().out == f"{tmp_path}/to/index.html\n"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/run", "b/run"], ["a/run", "b/run"]),
        (["a/x/run", "b/x/run"], ["a/x/run", "b/x/run"]),
        (["a/one", "b/two"], ["one", "two"]),
        (["a/run", "a/run"], ["run", "run"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(paths, names):
    assert report.names_of(list(map(pathlib.Path, paths))) == names


def test_the_working_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.names_of([pathlib.Path(".")]) == [tmp_path.name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"settings": {}}'),
        ("summary.json", "{"),
        ("summary.json", "{}"),
        ("metrics.jsonl", '{"epoch": 1, "tr\n'),
        ("metrics.jsonl", '{"epoch": 1}\n'),
        ("best_params.npz", "PK"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(command, tmp_path, monkeypatch, name, content):
    assert command(*SMALL, "--epochs=1", f"--out_dir={tmp_path}")[0] == 0
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["lrajax report"])
    with pytest.raises(SystemExit) as end:
        report.run([str(tmp_path)])
    assert end.value.code.startswith("lrajax report: ")
    assert str(tmp_path) in end.value.code
    assert name in end.value.code
    assert "\n" not in end.value.code


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", "{path} is damaged, no JSON: bring it back, or delete it"),
        ("summary.json", "[]", "{path} is not what was written there: bring it back, or delete it"),
        ("config.json", "{", "--out_dir={folder}: its config.json is damaged or of another"),
        ("config.json", '{"settings": {}}', "--out_dir={folder}: its config.json is damaged or of"),
    ],
)
def test_a_damaged_file_is_named_by_the_training_too(command, tmp_path, name, content, message):
    words = (*SMALL, "--epochs=1", f"--out_dir={tmp_path}")
    assert command(*words)[0] == 0
    (tmp_path / name).write_text(content)
    status, _, said = command(*words)
    assert status == 2
    message = message.format(path=tmp_path / name, folder=tmp_path)
    assert said.startswith(f"lrajax train: {message}")
    assert said.count("\n") == 1


def test_the_lock_is_given_back(command, tmp_path, recwarn):
    assert command(*SMALL, "--epochs=1", f"--out_dir={tmp_path}")[0] == 0
    assert not [w for w in recwarn if w.category is ResourceWarning]


def test_flags_of_an_earlier_command_in_the_same_process_are_forgotten(command):
    assert command(*SMALL, "--epochs=1", "--num_seeds=2")[0] == 0
    _, table, _ = command(*SMALL, "--epochs=1")
    assert len(table.splitlines()) == 3


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("--lr=0.01,0.01", "write every value once: --num_seeds repeats runs"),
        ("--dataset=MNIST", "did you mean mnist?"),
        ("--seeds=3", "--seeds is no flag: write --num_seeds"),
        ("--learning_rate=0.1", "--learning_rate is no flag: write --lr"),
        ("--width=64,128", "--width=64,128: write a whole number"),
    ],
)
def test_the_advice_helps(command, word, advice):
    status, _, said = command(word)
    assert status == 2
    assert advice in said
    assert len(said.splitlines()) == 1


@pytest.fixture
def guarded():
    guards = {"jax_transfer_guard": "disallow", "jax_numpy_dtype_promotion": "strict"}
    before = {name: getattr(jax.config, name) for name in guards}
    for name, value in guards.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_guards_and_promotion_of_ones_own_code_do_not_stop_the_command(command, guarded):
    assert command(*SMALL, "--epochs=1")[0] == 0


def test_nor_does_double_precision(command, guarded):
    with jax.enable_x64(True):
        assert command(*SMALL, "--epochs=1")[0] == 0


def test_nor_any_other(guarded, monkeypatch):
    def main():
        seen.append((jax.config.jax_transfer_guard, jax.config.jax_numpy_dtype_promotion))

    seen = []
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    commandline.run(main, tune.FLAGS, None)  # which runs all experiments but report.py
    monkeypatch.setattr(report.reading, "find", lambda *_: main() or sys.exit())
    with pytest.raises(SystemExit):
        report.run(["runs"])
    assert seen == [("allow", "standard")] * 2


def test_a_backend_that_is_not_there_is_named(command, monkeypatch, capsys):
    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda'\n\nmany lines")

    monkeypatch.setattr(placement.jax, "devices", missing)
    status, _, said = command(*SMALL)
    assert status == 2
    assert "finds no device: unset it" in said
    assert len(said.splitlines()) == 1

    monkeypatch.setattr(sys, "argv", ["tune.py"])
    with pytest.raises(SystemExit) as end:
        commandline.run(pytest.fail, tune.FLAGS, None)
    assert end.value.code == 2
    assert capsys.readouterr().err == said.replace("lrajax train", "tune.py")
    with pytest.raises(SystemExit) as end:
        report.run(["runs"])
    assert "finds no device: unset it" in end.value.code


def test_a_tree_that_is_not_installed_keeps_its_version(command, monkeypatch, tmp_path):
    version = importlib.metadata.version

    def installed(name):
        if name == "lrajax":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert command(*SMALL, "--epochs=1", f"--out_dir={tmp_path}")[0] == 0
    versions = json.loads((tmp_path / "config.json").read_text())["versions"]
    assert versions["lrajax"] == lrajax.__version__


def test_a_disk_that_is_full_ends_any_command_with_a_line(monkeypatch, tmp_path):
    """Each of them is run by `commandline.run`, and writes as this one does."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "argv", ["tune.py"])
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    path = tmp_path / "preset.json"
    with pytest.raises(SystemExit) as end:
        commandline.run(lambda: checkpoint.write(path, b"{}"), tune.FLAGS, None)
    assert end.value.code.startswith(
        f"tune.py: {path} cannot be written (No space left on device): make room"
    )
    assert list(tmp_path.iterdir()) == []


def test_words_that_are_no_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lrajax", "trian"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 2
    assert "lrajax: 'trian' is no command" in capsys.readouterr().err


PROGRAM = """
import sys
sys.argv = ["lrajax", {words}]
from lrajax import __main__
__main__.main()
"""


def shell(line, bytecode, **env):
    """A line of the shell in which $LRAJAX is the command, compiled once for all in a folder."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        timeout=300,
        env={
            **os.environ,
            "LRAJAX": f"{sys.executable} -OO -X dev -m lrajax",
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "PYTHONDONTWRITEBYTECODE": "",
            **env,
        },
    )


@pytest.mark.parametrize("name", ["tune", *EXPERIMENTS])
def test_help_into_a_closed_pipe_ends_quietly(name, monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "experiments")
    values = tune.FLAGS if name == "tune" else importlib.import_module(name).FLAGS
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as end:
            commandline.run(pytest.fail, values, None)  # as python -OO has it
    assert end.value.code == 0


def test_terminals_of_all_kinds(tmp_path):
    """Closed, of ASCII alone, without docstrings, with development warnings."""
    words = "$LRAJAX list | head -1; $LRAJAX train --help 2>&- >&- ; $LRAJAX list > /dev/null"
    done = shell(words, tmp_path)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.stdout == b"Rules, --algo:\n"
    assert done.returncode == 0
    if pathlib.Path("/dev/full").exists():  # Linux
        full = shell("$LRAJAX list > /dev/full", tmp_path)
        assert full.returncode == 1
        assert full.stderr.startswith(b"lrajax list: a file cannot be written (No space left")
        assert full.stderr.count(b"\n") == 1
    run = f"$LRAJAX train {' '.join(SMALL)} --epochs=1"
    done = shell(run, tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    for word in (b"Traceback", b"Warning"):
        assert word not in done.stderr
