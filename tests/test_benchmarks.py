"""benchmarks/run.py as a user runs it, and its count of matrix products. Times are never judged.

What is counted are products of HLO, which conftest.py's want of LLVM's optimisations leaves alone.
"""

import importlib.util
import json
import pathlib
import sys

import commands
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


def run(*flags):
    return commands.run(FOLDER / "run.py", *flags)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    only = "steps,compose,authors,equil_prop,settling,roofline"
    done = run("--quick", f"--only={only}", f"--out={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(written):
    return json.loads((written / "benchmark.json").read_text())


def test_report_says_where_and_how(written, found):
    environment = found["environment"]
    assert {"device", "cores", "date", "load_average"} <= environment.keys()
    assert {"lrajax", "jax", "jaxlib"} <= environment["versions"].keys()
    assert environment["command"].startswith("python benchmarks/run.py --quick --only=steps")
    assert str(written.parent) not in (written / "benchmark.json").read_text()
    markdown = (written / "BENCHMARKS.md").read_text()
    assert environment["device"] in markdown
    assert "A quick run" in markdown


def test_every_rule_is_timed_against_jax_grad(found):
    import lrajax

    rows = found["sections"]["steps"]["tables"]["steps"]
    assert [row["rule"] for row in rows] == ["jax.grad", *lrajax.ALGORITHMS]
    for row in rows:
        step = row["step (µs)"]
        assert 0 < step["q1"] <= step["median"] <= step["q3"]
    assert rows[0]["over jax.grad"]["median"] == 1


def test_counts_of_matrix_products_at_three_layers(found):
    """By hand, from the equations: 4 forward, 3 back and 4 updates for backprop and its kin."""
    rows = {row["rule"]: row for row in found["sections"]["steps"]["tables"]["products"]}
    for name in ("backprop", "rfa", "dfa", "lra_e", "kolen_pollack", "sign_symmetric"):
        assert (rows[name]["targets"], rows[name]["step"]) == (7, 11)
    assert rows["jax.grad"]["step"] == 11
    for name in ("dtp", "dtp_sigma"):
        # 4 forward, 1 from the output, 2 of two decodings, 2 cycles of 2; then 4 + 2 updates
        assert (rows[name]["targets"], rows[name]["step"]) == (11, 17)
    # a skip's update besides
    assert (rows["rec_lra"]["targets"], rows["rec_lra"]["step"]) == (7, 12)
    # 1 for the clamped input, 24 relaxation steps of 3 up and 3 down; then 2 x 4 updates
    assert rows["equil_prop"]["step"] == 1 + 24 * 6 + 8


def test_roofline_has_the_products_of_the_step(found):
    rows = found["sections"]["roofline"]["tables"]["roofline"]
    assert [row["step of"] for row in rows] == ["jax.grad", "lra_e"]
    assert all(row["products"] == 11 for row in rows)


def test_a_scan_of_ones_own_is_timed_and_lra_e_copies_what_jax_grad_does(found):
    rows = found["sections"]["compose"]["tables"]["a scan of one's own"]
    assert [row["rule"] for row in rows][:3] == ["jax.grad", "backprop", "lra_e"]
    assert {row["copies"] for row in rows[:3]} == {4}  # two W inside, or two E outside as well


def test_settling_counts_two_products_a_pair_of_layers_and_sweep(found):
    tables = found["sections"]["settling"]["tables"]
    rows = {(row["rule"], row["sweep"]): row for row in tables["settling"]}
    assert len(rows) == len(tables["settling"]) == 2 * 3 + 4
    for row in rows.values():
        sweeps = (row["sweeps, free"] or 0) + row["sweeps, nudged"]
        assert row["products"] == 2 * row["hidden layers"] * sweeps
    # Layers in turn have their neighbours' newest states.
    synchronous, sequential = (
        rows["EP, γ = 0.3", sweep]["products"]
        for sweep in ("synchronous, ε = 0.5", "sequential, ε = 1")
    )
    assert sequential < synchronous / 2
    assert [row["settling"] for row in tables["step"]] == [
        "jax.grad",
        "the factory's",
        "the preset's",
    ]


def test_bounds_say_what_was_measured(found):
    bounds = [bound for section in found["sections"].values() for bound in section["bounds"]]
    assert len(bounds) == 8
    assert all(set(bound) == {"bound", "measured", "met"} for bound in bounds)


def test_sections_that_need_the_code_of_others_say_how_to_get_it(found):
    assert "https://github.com/AnkurMali/LRA-E" in found["skipped"]["authors"]
    repository = "https://github.com/Laborieux-Axel/Equilibrium-Propagation"
    assert repository in found["skipped"]["equil_prop"]


def test_missing_files_and_missing_torch_are_named(tmp_path):
    try:
        import torch
    except ImportError:
        torch = None
    flags = ["--authors_script=/nowhere/mnist_torch.py", "--ep_repository=/nowhere"]
    only = "authors,equil_prop" + ("" if torch else ",torch")
    done = run("--quick", f"--only={only}", f"--out={tmp_path}", *flags)
    assert done.returncode == 0, done.stderr
    skipped = json.loads((tmp_path / "benchmark.json").read_text())["skipped"]
    assert "no file mnist_torch.py" in skipped["authors"]
    assert "no file model_utils.py" in skipped["equil_prop"]
    assert torch or "pip install torch" in skipped["torch"]


def test_a_run_that_was_cut_off_goes_on_and_one_that_ends_is_history(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("report", FOLDER / "report.py")
    report = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "report", report)  # experiments/ has one of this name
    spec.loader.exec_module(report)
    import history

    def begin(*words):
        return report.Report.begin(words, quick=False, folder=tmp_path)

    first = begin("--only=a,b")
    first.sections["a"] = report.Section([], [report.Bound("x ≤ 1", 0.5, True)])
    first.write(tmp_path)
    assert begin("--only=b").sections == {}  # another command
    again = begin("--only=a,b")
    assert again.sections == first.sections
    again.end(tmp_path)
    assert begin("--only=a,b").sections == {}
    again.end(tmp_path)
    rows = history.read(tmp_path)
    assert [row["bounds"] for row in rows] == [{"x ≤ 1": 0.5}] * 2
    assert rows[0].keys() >= {"device", "versions", "commit", "date"}
    assert "<svg" in (tmp_path / history.PICTURE).read_text()


def test_unknown_section_is_refused_in_one_line(tmp_path):
    done = run("--only=step", f"--out={tmp_path}")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "'step'" in line
    assert "steps" in line
