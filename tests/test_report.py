"""experiments/report.py on runs of experiments/train.py."""

import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
SMALL = ("--width=16", "--hidden_layers=2", "--epochs=2")


def call(script, *words):
    command = [sys.executable, EXPERIMENTS / script, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def ok(script, *words):
    done = call(script, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of LRA-E, and a sweep of DFA."""
    folder = tmp_path_factory.mktemp("runs")
    ok("train.py", *SMALL, "--num_seeds=2", f"--out_dir={folder / 'two & more'}")
    ok("train.py", *SMALL, "--algo=dfa", "--lr=0.01,0.1", f"--out_dir={folder / 'sweep'}")
    return folder


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import report

    return report


def test_comparison_is_one_self_contained_page_and_pngs(folder, tmp_path):
    runs = (folder / "two & more", folder / "sweep")
    printed = ok("report.py", *runs, f"--to={tmp_path}", f"--tensorboard={tmp_path / 'logs'}")
    assert printed.strip() == str(tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    figures = re.findall(r'<figure id="(\w+)">', page)
    assert {"valid_error", "train_error", "angles", "feedback_angles", "discrepancy"} < {*figures}
    assert {"saturation", "filters_1", "confusion_1", "confusion_3"} < {*figures}
    assert {f"{name}.png" for name in figures} == {path.name for path in tmp_path.glob("*.png")}
    assert all(url.startswith("data:image/png") for url in re.findall(r'src="([^"]*)', page))
    assert "http" not in re.sub(r"base64,\S+", "", page)
    assert "two &amp; more" in page
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert f"{summary['test_error_mean']:.2f} ± {summary['test_error_std']:.2f}" in page
    assert read_tensorboard(tmp_path / "logs" / "two_&_more_1") == read_metrics(runs[0], 1)


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


def test_measures_are_those_of_the_selected_parameters(folder, report):
    path = folder / "two & more"
    run = report.Run(path)
    (series,) = report.read_series(run, None, iter(range(1)))
    summary = json.loads((path / "summary.json").read_text())
    for selected, error in zip(series.selected, summary["test_error"], strict=True):
        wrong = selected.confusion.sum() - np.trace(selected.confusion)
        assert 100 * wrong / 297 == pytest.approx(error, abs=1e-3)
    for start, selected in zip(series.start, series.selected, strict=True):
        assert np.isnan(selected.feedback_angles[0])
        assert (selected.feedback_angles[1:] < start.feedback_angles[1:]).all()
        assert selected.angles[-1] < 1  # the output's update is backprop's own
        assert selected.output_loss < start.output_loss
        assert selected.discrepancy > selected.output_loss
    assert series.filters.shape == (16, 8, 8)


def test_unfinished_run_shows_its_curves(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (run / name).write_bytes((folder / "sweep" / name).read_bytes())
    ok("report.py", run)
    page = (run / "report" / "index.html").read_text()
    assert "unfinished" in page
    assert 'id="angles"' not in page


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    done = call("report.py", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line
    assert "train.py --out_dir" in line
