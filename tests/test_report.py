"""experiments/report.py on runs of experiments/train.py."""

import itertools
import json
import re
import struct

import numpy as np
import pytest
from commands import EXPERIMENTS, run

import lrajax

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
def report():
    from lrajax.runs.commands import report

    return report


@pytest.fixture(scope="module")
def runs(folder, report):
    return [report.Run(folder / name, name) for name in ("two & more", "sweep")]


@pytest.fixture(scope="module")
def series(runs, report):
    number = itertools.count()
    return [one for run in runs for one in report.read_series(run, None, number)]


def test_comparison_is_one_self_contained_page_and_pngs(runs, series, report, tmp_path):
    report.write_page(runs, series, tmp_path)
    page = (tmp_path / "index.html").read_text()
    figures = re.findall(r'<figure id="(\w+)">', page)
    assert {"valid_error", "train_error", "angles", "feedback_angles", "discrepancy"} < {*figures}
    assert {"saturation", "filters_1", "confusion_1", "confusion_3"} < {*figures}
    assert {f"{name}.png" for name in figures} == {path.name for path in tmp_path.glob("*.png")}
    assert all(url.startswith("data:image/png") for url in re.findall(r'src="([^"]*)', page))
    assert "http" not in re.sub(r"base64,\S+", "", page)
    assert "two &amp; more" in page
    summary = runs[0].summary
    assert f"{summary['test_error_mean']:.2f} ± {summary['test_error_std']:.2f}" in page


def test_tensorboard_has_the_metrics(runs, series, report, tmp_path):
    report.write_tensorboard(series, tmp_path)
    assert read_tensorboard(tmp_path / "two_&_more_1") == read_metrics(runs[0].path, 1)


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


def test_measures_are_those_of_the_selected_parameters(runs, series):
    one = series[0]
    for selected, error in zip(one.selected, runs[0].summary["test_error"], strict=True):
        wrong = selected.confusion.sum() - np.trace(selected.confusion)
        assert 100 * wrong / 297 == pytest.approx(error, abs=1e-3)
    for start, selected in zip(one.start, one.selected, strict=True):
        assert np.isnan(selected.feedback_angles[0])
        assert (selected.feedback_angles[1:] < start.feedback_angles[1:]).all()
        assert selected.angles[-1] < 1  # the output's update is backprop's own
        assert selected.output_loss < start.output_loss
        assert selected.discrepancy > selected.output_loss
    assert one.filters.shape == (16, 8, 8)


def test_unfinished_run_shows_its_curves(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (run / name).write_bytes((folder / "sweep" / name).read_bytes())
    ok("report.py", run)
    page = (run / "report" / "index.html").read_text()
    assert "unfinished" in page
    assert 'id="angles"' not in page


def test_a_network_without_dense_filters_shows_the_rest(tmp_path):
    run = tmp_path / "run"
    ok("train.py", "--network=locally_connected", "--width=2", "--epochs=1", f"--out_dir={run}")
    ok("report.py", run)
    page = (run / "report" / "index.html").read_text()
    assert "locally_connected 2 tanh" in page
    assert 'id="confusion_1"' in page
    assert 'id="filters_1"' not in page


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    done = run("report.py", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line
    assert "train --out_dir" in line


def test_command_of_the_readme_draws_its_run(folder):
    """Its folder is the one that the README's first command makes."""
    readme = (EXPERIMENTS.parent / "README.md").read_text()
    (run,) = re.findall(r"^\.venv/bin/python experiments/report\.py (\S+)$", readme, re.MULTILINE)
    assert f"--out_dir={run}\n" in readme
    ok("report.py", folder / "two & more")
    assert (folder / "two & more" / "report" / "index.html").exists()


def test_backprop_is_measured_against_the_same_draws_and_slopes():
    from lrajax import data
    from lrajax.runs import presets
    from lrajax.runs.page import measures

    digits = data.load("digits")
    for activation in ("bernoulli", "sign_ste"):
        small = {"hidden_layers": 2, "width": 16}
        settings = presets.resolve("backprop", activation=activation, **small)
        probe = measures.Probe(settings, digits, {})
        np.testing.assert_allclose(probe.measure(probe.start(0)).angles, 0, atol=0.1)


def params_with(weights):
    return lrajax.Params(({"w": weights, "b": np.zeros(weights.shape[-1])},), ())


def test_filters_are_images_in_the_shape_of_the_set():
    from lrajax.runs.page.measures import filters

    rng = np.random.default_rng(0)
    dense, kernels = rng.normal(size=(24, 5)), rng.normal(size=(3, 3, 2, 5))
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
    from lrajax.runs.page import figures

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
