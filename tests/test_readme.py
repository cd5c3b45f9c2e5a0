"""The README's snippets and commands, run as written."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = "".join(blocks("bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets_run(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("command", [c for c in commands() if "experiments/train.py" in c])
def test_training_commands_run(command, tmp_path):
    """The part after the installation, for one epoch, with digits in place of a folder of MNIST."""
    words = shlex.split(command.split(" && ")[-1])
    assert words[0].endswith("python")
    words = [w.replace("mnist", "digits").replace("FOLDER", str(tmp_path)) for w in words[1:]]
    script = [str(ROOT / words[0]), *words[1:], "--epochs=1"]
    done = subprocess.run(
        [sys.executable, *script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "test %" in done.stdout


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = [c for c in commands() if "pytest" in c]
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_table_of_rules_is_complete():
    import lrajax

    rules = re.findall(r"^\| `(\w+)` .*\((.*?)\) \|$", README, re.MULTILINE)
    assert [name for name, _ in rules] == list(lrajax.ALGORITHMS)
    assert all((ROOT / path).exists() for _, path in rules)
