"""What a user must never meet: a lost run, a wrong number, a traceback."""

import errno
import json
import math
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import commands
import jax
import jax.numpy as jnp
import kill
import long_haul
import numpy as np
import optax
import pytest

import lrajax
from lrajax import checkpoint, diagnostics, training
from lrajax.runs import records
from lrajax.runs.experiment import Epoch, Experiment
from lrajax.runs.folder import RunFolder
from lrajax.runs.settings import Settings

EPOCHS = 100


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run prints, and its results, if nothing disturbs it."""
    folder = tmp_path_factory.mktemp("alone")
    status, stdout, stderr = kill.finish(kill.start(folder, f"--epochs={EPOCHS}"))
    assert status == 0, stderr
    return stdout, kill.results(folder)


@pytest.fixture(scope="module")
def alone(undisturbed):
    return undisturbed[1]


def start(folder, *flags):
    return kill.start(folder, f"--epochs={EPOCHS}", *flags)


def complaint(stderr):
    """What train.py said, without the progress bar."""
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("train.py: ")]


# --- Interruption and resumption -----------------------------------------------------------------


def test_a_run_killed_at_random_is_the_run_left_alone(tmp_path, alone):
    rng = random.Random(1)
    for _ in range(2):
        _, lost = kill.kill_once(tmp_path, EPOCHS, rng, startup=3)
        assert lost <= 1
    status, _, stderr = kill.finish(start(tmp_path))
    assert status == 0, stderr
    assert kill.results(tmp_path) == alone
    assert checkpoint.steps(tmp_path) == [EPOCHS]  # from which more epochs go on


def test_signals_and_damaged_files(tmp_path, alone):
    """One run: SIGINT, then damage by the disk, SIGTERM, then the end."""
    folder = tmp_path / "läuft gut 学"
    first = start(folder)
    assert kill.wait_for(first, folder, 5)
    first.send_signal(signal.SIGINT)
    status, stdout, stderr = kill.finish(first)
    assert status == 130
    assert "error at lowest validation error" in stdout
    assert "the same command goes on from there" in complaint(stderr)[-1]

    newest = checkpoint.path_of(folder, kill.newest(folder))
    newest.write_bytes(newest.read_bytes()[:1000])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 1')
    second = start(folder, "--checkpoint_every=2")
    reached = kill.lines(folder) + 5
    assert kill.wait_for(second, folder, reached)
    second.send_signal(signal.SIGTERM)
    status, _, stderr = kill.finish(second)
    assert status == 143
    passed_over, goes_on, *_ = complaint(stderr)
    assert f"{newest} is damaged: passed over" in passed_over
    assert "goes on after epoch" in goes_on
    assert kill.newest(folder) == kill.lines(folder) >= reached

    assert kill.finish(start(folder))[0] == 0
    assert kill.results(folder) == alone


def test_two_runs_on_one_folder(tmp_path):
    holder, other = (RunFolder(tmp_path, settings(), print) for _ in range(2))
    holder.open()
    with pytest.raises(ValueError, match="in use by another process: wait for it"):
        other.open()
    holder.close()  # as the end of the process does, however it comes
    other.open()
    other.close()


def test_the_second_signal_ends_the_process_in_the_middle_of_an_epoch():
    program = (
        "import time\n"
        "from lrajax.runs.interruption import Interruption\n"
        "interruption = Interruption(lambda message: print(message, flush=True))\n"
        "interruption.begin()\n"
        "print('ready', flush=True)\n"
        "time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("SIGINT: stops after this epoch")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert time.monotonic() - began < 10
    process.stdout.close()


TRAIN = commands.EXPERIMENTS / "train.py"
# As the script that `pip install` makes.
INSTALLED = "import sys; sys.argv = ['lrajax', 'train']; import lrajax_command as c; c.main()"


@pytest.mark.parametrize(
    ("words", "name", "number", "seconds"),
    [
        ([TRAIN], "train.py", signal.SIGINT, 0),
        ([TRAIN], "train.py", signal.SIGTERM, 1.5),
        (["-c", INSTALLED], "lrajax", signal.SIGINT, 0.3),
        ([commands.EXPERIMENTS / "tune.py"], "tune.py", signal.SIGTERM, 0.3),
        ([commands.EXPERIMENTS / "reproduce.py"], "reproduce.py", signal.SIGINT, 0.3),
        ([commands.EXPERIMENTS / "boosted_trees.py"], "boosted_trees.py", signal.SIGINT, 0.3),
    ],
)
def test_a_signal_before_there_is_work_ends_with_a_line(words, name, number, seconds):
    """While JAX is imported, flags are read, or data are loaded."""
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # Python itself sets no handler of SIGTERM.
    while not caught(process.pid) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    status, stdout, stderr = kill.finish(process)
    assert (status, stdout) == (128 + number, "")
    assert re.fullmatch(
        rf"{name}( train)?: {number.name}: stopped( before the first epoch)?\n", stderr
    )


@pytest.mark.parametrize("words", [["-m", "lrajax"], ["-c", "import lrajax"]])
def test_python_m_listens_before_it_imports_what_takes_seconds(words, tmp_path):
    """And a program of one's own keeps its signals."""
    told = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT).__name__)"
    (tmp_path / "jax.py").write_text(told)
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(lrajax.__file__).parents[1])])
    # Python leaves Ctrl-C ignored where it was, as in what a shell runs in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stderr == ("_stop\n" if "-m" in words else "default_int_handler\n")


def caught(process):
    """The signals that a process has handlers for, a bit each."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)


def test_a_run_on_other_devices_resumes_too(tmp_path):
    two = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    flags = ("--width=8", "--hidden_layers=1", "--num_seeds=2", "--epochs=200")
    out = tmp_path / "out"
    env = {**os.environ, "XLA_FLAGS": two}
    process = commands.start("train.py", *flags, f"--out_dir={out}", "--num_devices=2", env=env)
    assert kill.wait_for(process, out, 3)
    process.kill()
    process.communicate()
    done = commands.run("train.py", *flags, f"--out_dir={out}")
    assert done.returncode == 0, done.stderr
    assert "goes on after epoch" in done.stderr
    metrics, summary, _ = kill.results(out)
    assert [line["epoch"] for line in metrics] == list(range(1, 201))
    assert summary["diverged_at"] == [None, None]


def test_a_run_of_another_random_generator_is_refused(tmp_path):
    runs = settings(algo="dtp_sigma", epochs=1)

    def started(generator):
        with jax.default_prng_impl(generator):
            experiment = Experiment(runs, tiny(50, 1))
            return experiment, experiment.start()

    experiment, run = started("rbg")
    folder = RunFolder(tmp_path, runs, print)
    folder.open()
    folder.write_epoch(epoch(1), experiment.on_host(run))
    step, found = folder.resume(run)
    assert step == 1
    np.testing.assert_array_equal(
        checkpoint.plain(found.state.key), jax.random.key_data(run.state.key)
    )
    with pytest.raises(ValueError, match=r"of rbg keys there and .* of unsafe_rbg keys here"):
        folder.resume(started("unsafe_rbg")[1])
    folder.close()


# --- Disks ---------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_printed_all_the_same(tmp_path, undisturbed):
    """A limit on the size of files lets metrics.jsonl grow for a while, and no checkpoint."""
    flags = (*kill.FLAGS, f"--epochs={EPOCHS}", f"--out_dir={tmp_path}")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", sys.executable, TRAIN, *flags],
        capture_output=True,
        text=True,
    )
    status, stdout, stderr = done.returncode, done.stdout, done.stderr
    assert status == 1
    assert stdout == undisturbed[0]
    failing, last = complaint(stderr)
    assert "cannot be written (File too large): training goes on" in failing
    assert "does not hold this result (File too large)" in last
    assert not (tmp_path / "summary.json").exists()


def test_an_out_dir_that_goes_away_is_not_made_anew(tmp_path, undisturbed):
    folder = tmp_path / "out"
    process = start(folder)
    assert kill.wait_for(process, folder, 2)
    folder.rename(tmp_path / "elsewhere")
    status, stdout, stderr = kill.finish(process)
    assert status == 1
    assert stdout == undisturbed[0]
    assert "does not hold this result (No such file or directory)" in complaint(stderr)[-1]
    assert not folder.exists()


def settings(**changes):
    defaults = {
        "algo": "dtp",
        "opt": "sgd",
        "lr": 0.1,
        "dataset": "digits",
        "hidden_layers": 1,
        "width": 2,
        "activation": "tanh",
        "batch_size": 50,
        "epochs": 9,
        "seeds": (0,),
        "hyperparameters": {},
    }
    return Settings(**(defaults | changes))


def epoch(number):
    metrics = training.Metrics(np.array([1.0]), np.array([50.0 - number]))
    return Epoch(
        number, None, training.EpochMetrics(*[metrics] * 3), np.array([0]), [None], 1.0, 1.0
    )


def taken(path, said):
    folder = RunFolder(path, settings(), said.append)
    folder.open()
    return folder, folder.resume({"w": np.zeros(2)})


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path, monkeypatch):
    said = []
    folder, (done, run) = taken(tmp_path, said)
    assert (done, run) == (0, None)
    folder.write_epoch(epoch(1), {"w": np.full(2, 1.0)})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        folder.write_epoch(epoch(2), {"w": np.full(2, 2.0)})
        folder.write_epoch(epoch(3), {"w": np.full(2, 3.0)})
        assert folder.error.errno == errno.ENOSPC
    assert checkpoint.steps(tmp_path) == [1]
    folder.write_epoch(epoch(4), {"w": np.full(2, 4.0)})
    assert folder.error is None
    assert [message.split(": ")[1][:8] for message in said] == ["training", "nothing "]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    folder.close()
    again, (done, run) = taken(tmp_path, said)
    assert done == 4
    np.testing.assert_array_equal(run["w"], [4, 4])
    again.close()


@pytest.mark.parametrize(
    ("tail", "done"),
    [
        (None, 3),
        (b'{"epoch": 4, "train_l', 3),
        (b'{"epoch": 4}', 3),  # whole but for its end
        (b"\xff\x00\n", 3),
        (b'{"epoch": 7}\n', 3),  # out of place
        (b"[]\n", 3),
    ],
)
def test_a_metrics_file_cut_in_mid_line(tmp_path, tail, done):
    folder, _ = taken(tmp_path, [])
    for number in (1, 2, 3):
        folder.write_epoch(epoch(number), {"w": np.full(2, float(number))})
    folder.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(before + (tail or b""))
    folder, (found, _) = taken(tmp_path, [])
    assert found == done
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    folder.close()


def test_a_checkpoint_that_the_metrics_do_not_reach_is_passed_over(tmp_path):
    folder, _ = taken(tmp_path, [])
    for number in (1, 2, 3):
        folder.write_epoch(epoch(number), {"w": np.full(2, float(number))})
    folder.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    said = []
    folder, (done, run) = taken(tmp_path, said)
    assert done == run["w"][0] == 2
    assert "later than step 2: passed over" in said[0]
    folder.close()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": "{"}, "config.json is damaged"),
        ({"config.json": "[]"}, "config.json is damaged"),
        ({"metrics.jsonl": "mine"}, "holds metrics.jsonl of something else"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        RunFolder(tmp_path, settings(), print)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    folder, _ = taken(tmp_path, [])
    folder.write_epoch(epoch(1), {"other": np.zeros(2)})
    folder.close()
    folder = RunFolder(tmp_path, settings(), print)
    folder.open()
    with pytest.raises(ValueError, match="does not fit: other is"):
        folder.resume({"w": np.zeros(2)})
    folder.close()


def test_other_versions_are_noted(tmp_path, monkeypatch):
    folder, _ = taken(tmp_path, [])
    folder.write_epoch(epoch(1), {"w": np.zeros(2)})
    folder.close()
    said = []
    folder = RunFolder(tmp_path, settings(), said.append)
    folder._config["device"] = "abacus"
    folder._config["commit"] = "of the abacus"
    folder.open()
    assert folder.resume({"w": np.zeros(2)})[0] == 1
    assert "may differ" in said[-1]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["device"] != "abacus"
    (resumed,) = config["resumed"]
    assert (resumed["after_epoch"], resumed["device"]) == (1, "abacus")
    assert resumed["commit"] == "of the abacus"
    folder.close()


# --- Numerical honesty ---------------------------------------------------------------------------

SMALL = ("--width=8", "--hidden_layers=1", "--epochs=3")


def run(*flags):
    done = commands.run("train.py", *SMALL, *flags)
    return done.returncode, done.stdout, complaint(done.stderr)


def test_a_diverged_run_is_named_and_the_others_go_on(tmp_path):
    status, stdout, said = run(
        "--lr=0.01,1e38", "--num_seeds=2", "--check_finite", f"--out_dir={tmp_path}"
    )
    assert status == 0
    assert [line.split(":")[1][1:25] for line in said] == [
        "seed 0, lr 1e+38 diverge",
        "seed 1, lr 1e+38 diverge",
    ]
    assert all("first in step 1, params/forward" in line for line in said)
    metrics, summary, _ = kill.results(tmp_path)
    assert len(metrics) == 3
    assert summary["diverged_at"] == [None, 1, None, 1]
    for name in ("best_epoch", "train_error", "valid_error", "test_error"):
        assert [value is None for value in summary[name]] == [False, True, False, True]
    assert metrics[-1]["train_loss"][1] is None
    assert math.isfinite(metrics[-1]["train_loss"][0])
    assert stdout.splitlines()[3].split() == ["1e+38", *["2", "of", "2", "diverged"] * 3]


def test_all_runs_diverged_ends_the_run_with_complete_files(tmp_path):
    status, _, said = run("--lr=1e38", f"--out_dir={tmp_path}")
    assert status == 1
    assert "all runs diverged: lower --lr" in said[-1]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["diverged_at"], summary["test_error_mean"]) == ([1], None)


def test_divergence_is_kept_at_its_first_epoch_and_never_selected():
    algo, optimizer = lrajax.backprop(lrajax.mlp((3, 2, 2))), optax.sgd(0.1)
    examples = lrajax.data.Examples(np.ones((4, 3), np.uint8), np.arange(4) % 2)
    step = training.make_train_step(algo, optimizer)

    def broken(state, batch):
        """The loss of the third step, an epoch each, is infinite; the parameters stay finite."""
        state, metrics = step(state, batch)
        return state, metrics._replace(loss=jnp.where(state.step == 3, jnp.inf, metrics.loss))

    run = training.init_run(algo, optimizer, jax.random.key(0))
    epoch = jax.jit(training.make_epoch(algo, broken, 4, 2))
    seen = []
    for _ in range(4):
        run, _ = epoch(run, *[examples] * 3)
        seen.append(int(run.diverged_at))
    assert seen == [0, 0, 3, 3]
    assert run.best.epoch != 3


@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        (lambda c: c._replace(z=(c.z[0] * jnp.nan, *c.z[1:])), "z/0"),
        (lambda c: c._replace(errors=(c.errors[0] * jnp.inf, *c.errors[1:])), "errors/0"),
        (lambda c: c._replace(h=(*c.h[:-1], c.h[-1] * jnp.nan)), "h/2"),
    ],
)
def test_the_watch_names_the_first_step_and_quantity(spoil, culprit):
    algo = lrajax.lra_e(lrajax.mlp((3, 4, 4, 2)))
    batch = lrajax.Batch(jnp.ones((4, 3)), jnp.eye(2)[jnp.arange(4) % 2])

    def compute_targets(params, batch, *, key=None):
        lambda_ = algo.compute_targets(params, batch, key=key)
        spoiled = spoil(lambda_)
        # in step 3 only, told by a bias that counts the steps
        return jax.tree.map(lambda a, b: jnp.where(batch.x[0, 0] == 3, b, a), lambda_, spoiled)

    sick = algo._replace(compute_targets=compute_targets)
    optimizer = optax.sgd(0.1)
    watched = training.make_train_step(sick, optimizer, diagnostics.watch)
    state = diagnostics.begin_watch(training.init_state(algo, optimizer, jax.random.key(0)))
    for step in (1, 2, 3, 4):
        state, _ = jax.jit(watched)(state, batch._replace(x=batch.x * step))
    assert diagnostics.first_nonfinite(state.params, state.observed) == f"step 3, {culprit}"
    # as it is where other quantities stay finite until later
    later = jnp.where(state.observed == 3, 3, 4)
    assert diagnostics.first_nonfinite(state.params, later) == f"step 3, {culprit}"
    assert diagnostics.first_nonfinite(state.params, 0 * state.observed) is None


# --- Hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": math.nan}, "lr=nan"),
        ({"lr": 1e39}, "lr=1e.39 must be a finite number above 0, in float32"),
        ({"lr": 1e-60}, "lr=1e-60"),
        ({"sweep": {"noise": (0.1, math.inf)}}, "noise=inf"),
        ({"hyperparameters": {"noise": math.nan}}, "noise=nan"),
        ({"width": 10**20}, "width=1"),
        ({"hidden_layers": 10**6}, "hidden_layers=1000000 must be at least 1 and at most 1000"),
        ({"epochs": 2**31}, "epochs=2147483648"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seeds": (-1, 0)}, "seed=-1"),
        ({"seeds": (2**32 - 1, 2**32)}, "seed=4294967296"),
        ({"algo": "equil_prop", "hyperparameters": {"rates": (math.nan, 1)}}, "rates"),
        ({"algo": "equil_prop", "hyperparameters": {"tolerance": math.nan}}, "tolerance"),
        ({"algo": "equil_prop", "hyperparameters": {"step_size": 0.0}}, "step_size"),
        ({"algo": "equil_prop", "hyperparameters": {}, "activation": "relu"}, "activation=relu"),
    ],
)
def test_numbers_that_cannot_be_meant(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        settings(**changes).check()
    assert "\n" not in str(error.value)


def tiny(train, valid, labels=2):
    def examples(size):
        rng = np.random.default_rng(size)
        return lrajax.data.Examples(
            rng.integers(0, 255, (size, 6), np.uint8), np.arange(size, dtype=np.int32) % labels
        )

    return lrajax.data.Dataset(
        examples(train), examples(valid), examples(3), (2, 3), labels, 255.0, "tiny"
    )


@pytest.mark.parametrize(("train", "valid", "labels"), [(50, 1, 2), (51, 1, 1), (99, 7, 3)])
def test_one_validation_example_a_single_class_and_odd_sizes(train, valid, labels):
    experiment = Experiment(settings(epochs=2), tiny(train, valid, labels))
    *_, last = experiment.epochs()
    best = experiment.on_host(last.run.best)
    result = records.summary(
        experiment.settings, best, experiment.train_error(best.params), last.diverged_at
    )
    assert result["diverged_at"] == [None]
    assert 0 <= result["valid_error"][0] <= 100
    if labels == 1:
        assert result["test_error"] == [0]


def test_networks_for_images_refuse_what_is_no_image():
    with pytest.raises(
        ValueError, match=r"^network=lenet takes images, .* shape \(2, 3\): choose mlp"
    ):
        Experiment(settings(network="lenet", hidden_layers=None), tiny(50, 1))
    Experiment(settings(network="resmlp"), tiny(50, 1))


def test_a_shape_is_taken_as_it_is_and_never_guessed_from_the_number_of_pixels():
    lenet = settings(network="lenet", hidden_layers=None, width=2)
    for image_shape in ((8, 8), (4, 16), (16, 4), (4, 5, 3)):
        assert lenet.make_network(image_shape, 2).layers[0].in_shape == (math.prod(image_shape),)
        first = settings(network="mlp").make_network(image_shape, 2).layers[0]
        assert first.in_shape == (math.prod(image_shape),)
    tall, wide = (lenet.make_network(shape, 2) for shape in ((16, 4), (4, 16)))
    assert tall.layers[1].in_shape == (8, 2, 2)
    assert wide.layers[1].in_shape == (2, 8, 2)
    for no_image in ((64,), (3, 21), (64, 1)):
        with pytest.raises(ValueError, match="network=lenet takes images"):
            lenet.make_network(no_image, 2)


def test_runs_that_cannot_fit_into_the_memory_are_refused_at_once():
    with pytest.raises(ValueError, match=r"GiB are needed and .* lower --width"):
        Experiment(settings(width=10**6, hidden_layers=3), tiny(50, 1))
    with pytest.raises(ValueError, match="batch_size=50 exceeds the training set"):
        Experiment(settings(), tiny(49, 1))


def test_a_flag_that_is_empty_or_no_number_is_refused():
    for flags, words in ((["--lr="], "--lr="), (["--seed=1e3"], "--seed"), (["--lr=1,,2"], "--lr")):
        status, _, said = run(*flags)
        assert status == 2
        assert len(said) == 1
        assert words in said[0]


# --- Long runs -----------------------------------------------------------------------------------


def test_nothing_grows_with_the_epochs(tmp_path):
    """The shortened form of tests/long_haul.py."""
    measured = long_haul.measure(120, tmp_path)
    assert measured[-1].compilations == measured[2].compilations > 0
    assert measured[-1].memory - measured[20].memory < 5
