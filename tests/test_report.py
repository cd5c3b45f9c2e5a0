"""experiments/report.py on runs of experiments/train.py."""

import dataclasses
import json
import re
import shutil
import struct

import chex
import jax
import numpy as np
import pytest
from commands import EXPERIMENTS, run
from test_tables import ERRORS, SWEEP, rows

import lrajax
from lrajax import data, training
from lrajax.runs import presets, reading, tables, trackers
from lrajax.runs.commands import report
from lrajax.runs.experiment import Experiment
from lrajax.runs.page import contents, figures, measures, page

SMALL = ("--width=16", "--hidden_layers=2", "--epochs=2")


def ok(script, *words):
    done = run(script, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of LRA-E, and a sweep of DFA."""
    folder = tmp_path_factory.mktemp("runs")
    ok("train.py", *SMALL, "--num_seeds=2", f"--out_dir={folder / 'two & more'}")
    ok("train.py", *SMALL, "--algo=dfa", "--lr=0.01,0.1", f"--out_dir={folder / 'sweep'}")
    return folder


@pytest.fixture(scope="module")
def folders(folder):
    return [reading.Folder(folder / name, name) for name in ("two & more", "sweep")]


@pytest.fixture(scope="module")
def shown(folders):
    return contents.gather(folders)


@pytest.fixture(scope="module")
def series(shown):
    return shown.series


def test_comparison_is_one_self_contained_page_with_files_beside_it(folders, shown, tmp_path):
    page.write(shown, tmp_path)
    text = (tmp_path / "index.html").read_text()
    drawn = re.findall(r'<figure id="(\w+)">', text)
    assert {"valid_error", "train_error", "angles", "feedback_angles", "discrepancy"} < {*drawn}
    assert {"saturation", "filters_1", "confusion_1"} < {*drawn}  # of the best alone
    assert not {"filters_2", "confusion_2"} & {*drawn}
    names = {path.name for path in tmp_path.iterdir()}
    figures = {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    assert names == {"index.html", "table.csv", "table.md", "table.tex", *figures}
    assert all(
        url.startswith("data:image/png") for url in re.findall(r'xlink:href="([^#"]+)', text)
    )
    assert "http" not in re.sub(r"base64,\S+", "", text)
    assert "<dd>" + str(folders[0].path).replace("&", "&amp;") in text
    assert "train.py --width=16" in text
    summary = folders[0].summary
    mean, std = (f"{summary[f'test_error_{name}']:.2f}" for name in ("mean", "std"))
    assert f"<span>{mean}</span> <span>± {std}</span>" in text
    best = min(shown.rows, key=lambda row: row.moments("valid_error"))
    assert text.count('class="best"') == 1
    assert f"Best by validation error: {tables.labels(shown.rows)[shown.rows.index(best)]}" in text


def test_tensorboard_has_the_metrics(folders, series, tmp_path):
    report.write_tensorboard(series, tmp_path)
    assert read_tensorboard(tmp_path / "LRA-E_lr_0.01_1") == read_metrics(folders[0].path, 1)


def test_tensorboard_that_is_not_installed_is_named_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        report.run([str(folder / "sweep"), "--tensorboard=logs"])
    assert end.value.code.endswith("tensorboard=logs needs tensorboardX: pip install tensorboardX")


def read_metrics(folder, seed):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["epoch"], pytest.approx(line["valid_error"][seed])) for line in lines]


def read_tensorboard(folder):
    """(step, value) of the validation errors; a record is length, CRC, an Event, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    raw, values = path.read_bytes(), []
    while raw:
        (length,) = struct.unpack("<Q", raw[:8])
        event = Event.FromString(raw[12 : 12 + length])
        values += [
            (event.step, value.simple_value)
            for value in event.summary.value
            if value.tag == "valid_error"
        ]
        raw = raw[16 + length :]
    return values


def test_measures_are_those_of_the_selected_parameters(folders, series):
    one = series[0]
    for selected, error in zip(one.selected, folders[0].summary["test_error"], strict=True):
        wrong = selected.confusion.sum() - np.trace(selected.confusion)
        assert 100 * wrong / 297 == pytest.approx(error, abs=1e-3)
    for start, selected in zip(one.start, one.selected, strict=True):
        assert np.isnan(selected.feedback_angles[0])
        assert (selected.feedback_angles[1:] < start.feedback_angles[1:]).all()
        assert selected.angles.shape == (2,)  # the output's update is backprop's own
        assert (selected.angles > 1).all()
        assert selected.output_loss < start.output_loss
        assert selected.discrepancy > selected.output_loss
    assert one.filters.shape == (16, 8, 8)


def figures_of(run):
    """The names of the figures that a report of the folder has, its rows and what it leaves out."""
    shown = contents.gather([reading.Folder(run, "run")])
    names = [name for name, _, _ in page.draw(shown)]
    figures.plt.close("all")
    return names, shown.rows, shown.missing


def test_unfinished_run_shows_its_curves(folder, tmp_path):
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(folder / "sweep" / name, tmp_path)
    drawn, found, missing = figures_of(tmp_path)
    assert drawn == list(page.CURVES)
    assert tables.to_markdown(found).count("unfinished") == 2 * 3
    assert missing[0].endswith("are left out: the run is not finished.")


def test_without_the_data_set_the_curves_are_drawn_and_the_rest_is_named(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "sweep", run)
    config = json.loads((run / "config.json").read_text())
    config["settings"]["dataset"] = "gone.npz"
    (run / "config.json").write_text(json.dumps(config))
    drawn, _, (sentence,) = figures_of(run)
    assert sentence.startswith(
        "run: Angles, discrepancy, saturation, filters and confusion are left"
    )
    assert "gone.npz: no such file" in sentence
    assert drawn == list(page.CURVES)


def test_a_network_without_dense_filters_shows_the_rest(tmp_path):
    run = tmp_path / "run"
    ok("train.py", "--network=locally_connected", "--width=2", "--epochs=1", f"--out_dir={run}")
    drawn, found, _ = figures_of(run)
    assert "locally_connected 2 tanh" in tables.common(found)
    assert "confusion_1" in drawn
    assert "filters_1" not in drawn


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    done = run("report.py", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line
    assert "train --out_dir" in line


@pytest.mark.parametrize("where", ["to", "tensorboard"])
def test_a_folder_that_cannot_be_written_is_named_in_one_line(folder, tmp_path, where):
    (tmp_path / "file").touch()
    words = {"to": tmp_path / "to", where: tmp_path / "file"}
    done = run("report.py", folder / "sweep", *(f"--{name}={to}" for name, to in words.items()))
    assert done.returncode == 1
    assert done.stderr.startswith(f"report.py: {tmp_path / 'file'}")
    assert "cannot be written (" in done.stderr
    assert done.stderr.count("\n") == 1


def test_command_of_the_readme_draws_its_run(folder):
    """Its folder is the one that the README's first command makes."""
    readme = (EXPERIMENTS.parent / "README.md").read_text()
    (run,) = re.findall(r"^\.venv/bin/python experiments/report\.py (\S+)$", readme, re.MULTILINE)
    assert f"--out_dir={run}\n" in readme
    ok("report.py", folder / "two & more")
    assert (folder / "two & more" / "report" / "index.html").exists()


def test_backprop_is_measured_against_the_same_draws_and_slopes():
    digits = data.load("digits")
    for activation in ("bernoulli", "sign_ste"):
        small = {"hidden_layers": 2, "width": 16}
        settings = presets.resolve("backprop", activation=activation, **small)
        probe = measures.Probe(settings, digits)
        np.testing.assert_allclose(probe.measure(probe.start(0, {}), {}).angles, 0, atol=0.1)


def test_a_run_of_the_largest_seed_is_measured_from_its_own_start():
    """Such a number is no 32-bit integer with a sign."""
    digits, seed = data.load("digits"), 2**32 - 1
    settings = presets.resolve("lra_e", hidden_layers=1, width=4)
    settings = dataclasses.replace(settings, seeds=(seed,))
    state = Experiment(settings, digits).start().state
    began = jax.tree.map(lambda a: np.squeeze(a, 0), training.to_predict(state))
    found = measures.Probe(settings, digits).start(seed, {})
    chex.assert_trees_all_equal(found, began)


def params_with(weights):
    return lrajax.Params(({"w": weights, "b": np.zeros(weights.shape[-1])},), ())


def test_filters_are_images_in_the_shape_of_the_set():
    rng = np.random.default_rng(0)
    dense, kernels = rng.normal(size=(24, 5)), rng.normal(size=(3, 3, 2, 5))
    filters = measures.filters
    found = filters(params_with(dense), (2, 4, 3))
    assert found.shape == (5, 2, 4, 3)
    assert found[3, 1, 2, 0] == dense[1 * 12 + 2 * 3 + 0, 3]
    np.testing.assert_array_equal(filters(params_with(dense), (4, 6))[1].ravel(), dense[:, 1])
    np.testing.assert_array_equal(filters(params_with(kernels), (9, 9, 2))[4], kernels[..., 4])
    grey = filters(params_with(kernels[:, :, :1]), (9, 9))
    np.testing.assert_array_equal(grey[4], kernels[:, :, 0, 4])
    assert filters(params_with(dense), (24,)) is None
    assert filters(params_with(rng.normal(size=(2, 2, 3, 3, 1, 4))), (9, 9)) is None
    assert filters(lrajax.Params(((params_with(dense).forward),), ()), (4, 6)) is None


def test_filters_with_colours_and_classes_by_name_are_drawn(series):
    green = np.zeros((1, 2, 2, 3))
    green[0, 0, 1, 1] = 4.0
    pixels = image_of(figures.filters(series[0]._replace(filters=green)))
    np.testing.assert_allclose(pixels[0, 1], [0.5, 1, 0.5])
    np.testing.assert_allclose(pixels[1, 0], 0.5)
    assert image_of(figures.filters(series[0]._replace(filters=green[..., :2]))).shape == (2, 2)

    assert series[0].class_names == tuple("0123456789")
    names = tuple(f"class {i}" for i in range(10))
    axes = figures.confusion(series[0]._replace(class_names=names)).axes[0]
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert tuple(tick.get_text() for tick in ticks) == names


def image_of(figure):
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array())


def test_axes_of_errors_are_fitted_to_the_data(series):
    def limits(*values):
        one = series[0]._replace(curves={"test_error": np.array([values]).T}, best_epochs=())
        axes = figures.curve([one], "test_error", "").axes[0]
        low, high = axes.get_ylim()
        figures.plt.close("all")
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        assert len(ticks) > 1
        return low, high, axes.get_yscale(), ticks

    low, high, scale, _ = limits(25.0, 14.0, 11.0)
    assert (9 < low < 11, 25 < high < 27, scale) == (True, True, "linear")
    low, high, scale, ticks = limits(90.0, 10.0, 2.5)
    assert (2 < low < 2.5, 90 < high < 110, scale, ticks) == (
        True,
        True,
        "symlog",
        [5, 10, 20, 50],
    )
    low, _, _, ticks = limits(40.0, 0.5, 0.0)
    assert low < 0
    assert ticks[0] == 0


def test_two_swept_values_are_a_map_and_one_is_a_line():
    found, _, _ = rows(errors=ERRORS, sweep=SWEEP)
    # As if the seed that diverged had not.
    found[2] = found[2]._replace(errors={name: [9.5, 4.0] for name in tables.ERROR_HEADS})
    ((_, caption, figure),) = page.draw_overview(found)
    assert "over lr and beta" in caption
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[9, 9], [6.75, 6]])
    assert axes.patches[-1].get_xy() == (0.5, 0.5)  # around the best
    ((_, _, figure),) = page.draw_overview(found[:2])
    (line,) = (container.lines[0] for container in figure.axes[0].containers)
    np.testing.assert_array_equal(line.get_xydata(), [[0.1, 9], [0.5, 9]])
    assert not [*page.draw_overview([found[0], found[3]])]  # a diagonal
    figures.plt.close("all")
