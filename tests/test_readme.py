"""The README's snippets and commands, run as written."""

import json
import pathlib
import re
import shlex
import statistics

import commands
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands_of_the_page():
    lines = "".join(blocks("bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets_run(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


# What keeps each command short, with digits in place of a folder of MNIST.
SHORT = {
    "train.py": ("--epochs=1", "--width=8"),
    "report.py": (),
    "reproduce.py": ("--quick", "--cells=dfa", "--out_dir=results"),
    "results.py": (),
}


def test_commands_run_in_the_order_of_the_page(tmp_path, monkeypatch):
    """What follows the installation; the tests' own command is the one that is running."""
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in (c.split(" && ")[-1] for c in commands_of_the_page() if "pytest" not in c):
        python, script, *flags = shlex.split(command)
        assert python.endswith("python")
        script = ROOT / script
        assert script.parent == commands.EXPERIMENTS
        flags = [flag.replace("mnist", "digits").replace("FOLDER", str(tmp_path)) for flag in flags]
        done = commands.run(script.name, *flags, *SHORT[script.name])
        assert done.returncode == 0, done.stderr
        ran.append(script.name)
    assert set(ran) == SHORT.keys()
    assert (tmp_path / "runs" / "first" / "report" / "index.html").exists()
    assert (tmp_path / "RESULTS.md").exists()


def test_the_headline_is_that_of_the_results():
    """Mean, deviation, seeds and epochs of a committed cell, and the paper's number."""
    record = json.loads((ROOT / "results" / "table1" / "lra_e-3.json").read_text())
    settings, summary = record["settings"], record["summary"]
    said = "{test_error_mean:.2f} ± {test_error_std:.2f} %**".format(**summary)
    extent = f"({len(settings['seeds'])} seeds, {settings['epochs']} epochs"
    assert f"**{said} test error on MNIST with three hidden layers {extent}" in " ".join(
        README.split()
    )
    cell = f"{summary['test_error_mean']:.2f} ± {summary['test_error_std']:.2f} (5) / 2.20 "
    assert cell in (ROOT / "RESULTS.md").read_text()


def test_the_errors_on_colour_images_are_those_of_the_results():
    """Means of three seeds, by rule."""
    text = " ".join(README.split())
    assert "three seeds) ends at" in text
    for rule, said in (
        ("backprop", "{} % by backprop"),
        ("kolen_pollack", "{} % by Kolen-Pollack"),
        ("lra_e", "{} % by LRA-E"),
        ("sign_symmetric", "{} % by sign-symmetric feedback"),
        ("rfa", "{} % by random feedback"),
    ):
        record = json.loads((ROOT / "results" / "cifar10" / f"{rule}-30.json").read_text())
        assert len(record["settings"]["seeds"]) == 3
        assert said.format(f"{record['summary']['test_error_mean']:.2f}") in text


def test_the_errors_of_tuned_rules_at_length_are_those_of_the_results():
    """Means of five seeds."""
    means = []
    for rule in ("lra_e", "backprop"):
        record = json.loads((ROOT / "results" / "tuned" / f"{rule}.json").read_text())
        assert (len(record["settings"]["seeds"]), record["settings"]["epochs"]) == (5, 100)
        means.append(f"{record['summary']['test_error_mean']:.2f}")
    said = f"for 100 epochs, five seeds, on MNIST at {means[0]} and {means[1]} %."
    assert said in " ".join(README.split())


def test_the_errors_of_tuned_rules_are_those_of_the_comparison():
    """Means of ten fresh seeds each."""
    means, epochs = [], set()
    for task in ("mnist-3", "fashion_mnist-3"):
        for rule in ("lra_e", "backprop"):
            entry = json.loads((ROOT / "leaderboard" / task / rule / "entry.json").read_text())
            assert len(entry["runs"]) == 10
            epochs.add(entry["settings"]["epochs"])
            means.append(statistics.mean(run["test_error"] for run in entry["runs"]))
    said = (
        "for {} epochs and with ten fresh seeds, it ends at {:.2f} % and backprop at {:.2f} %, on "
        "Fashion-MNIST at {:.2f} and {:.2f} %"
    )
    (length,) = epochs
    assert said.format(length, *means) in " ".join(README.split())


def test_every_link_of_a_release_is_absolute_and_leads_to_a_file(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".github")
    import release_pages

    page = release_pages.absolute(README, "https://host/me/lrajax/blob/v1")
    relative = set(re.findall(r"\]\((?!https:)([^)]+)\)", README))
    assert "docs/tutorial.md" in relative
    for path in relative:
        kind = "raw" if path.endswith(".png") else "blob"
        assert f"](https://host/me/lrajax/{kind}/v1/{path})" in page
        assert (ROOT / path).exists()
    assert not re.findall(r"\]\((?!https:)", page)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = [c for c in commands_of_the_page() if "pytest" in c]
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_tables_of_rules_are_those_of_the_records(monkeypatch):
    """`python docs/tables.py` writes them."""
    import lrajax

    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    for path, table in tables.PAGES.items():
        assert table() in path.read_text()
        assert all(f"`{name}`" in table() for name in lrajax.RULES)
    files = re.findall(r"^\| `\w+` .*\((.*?)\) \|$", README, re.MULTILINE)
    assert len(files) == len(lrajax.RULES)
    assert all((ROOT / path).exists() for path in files)
