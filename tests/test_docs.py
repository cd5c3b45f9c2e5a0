"""The documentation: every snippet runs, the rule of the how-to keeps its promise."""

import ast
import functools
import importlib.util
import inspect
import itertools
import os
import pathlib
import pkgutil
import re
import shlex
import subprocess
import sys
import types
from unittest import mock

import commands
import jax
import pytest

import lrajax

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(page, language):
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def pages_with(language):
    pages = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


@pages_with("python")
def test_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    with mock.patch.dict(lrajax.RULES):  # what a page enters there is gone after it
        for snippet in blocks(page, "python"):
            exec(compile(snippet, str(page), "exec"), namespace)


@pages_with("bash")
def test_commands_of_a_page_run(page, tmp_path, monkeypatch):
    """As written but for epochs, layers and width, on digits where the data is the reader's.

    Trackers that are not installed are left out.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    script = "".join(blocks(page, "bash"))
    for package in ("wandb", "mlflow"):
        if importlib.util.find_spec(package) is None:
            script = re.sub(rf"--{package}=\S+", "", script)
    script = re.sub(r"--data_dir=\S+", "", script)
    script = re.sub(r"--dataset=\w+(?![\w.])", "--dataset=digits", script)
    script = re.sub(r"--hidden_layers=\d+", "--hidden_layers=2", script)
    script = re.sub(r"(experiments/train\.py (?!.*--width).*)", r"\1 --width=8", script)
    mlps = r"(experiments/train\.py (?!.*--(?:hidden_layers|network|preset)).*)"
    script = re.sub(mlps, r"\1 --hidden_layers=2", script)
    script = re.sub(r"(experiments/train\.py .*)", r"\1 --epochs=1", script)
    for name, value in re.findall(r"^export (\w+)=(\S+)$", script, re.M):  # for what follows
        monkeypatch.setenv(name, value)
    for plain, lines in itertools.groupby(script.splitlines(), lambda line: bool(PLAIN(line))):
        for command in lines if plain else ["\n".join(lines)]:
            done = of_python(command) if plain else of_shell(command)
            assert done.returncode == 0, (command, done.stderr)


# A command of experiments/ with nothing that only a shell understands.
PLAIN = re.compile(r"python experiments/[^$\\&|;<>*`()]*").fullmatch


def of_python(command):
    _, script, *flags = shlex.split(command, comments=True)
    return commands.run(pathlib.Path(script).name, *flags)


def of_shell(script):
    path = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        ["bash", "-ec", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_rule_of_the_how_to_is_one_file_of_under_60_lines():
    rule = blocks(DOCS / "howto" / "new_rule.md", "python")[0]
    assert len(rule.splitlines()) < 60
    exec(rule, namespace := {})
    network = lrajax.mlp((3, 4, 2))
    assert namespace["kolen_pollack"](network).network is network  # whose layers may have a state


def test_every_rule_has_a_page_with_a_picture():
    for name in lrajax.ALGORITHMS:
        page = (DOCS / "rules" / f"{name}.md").read_text()
        assert "$$" in page
        assert "## When to use it" in page
        assert f"(../images/{name}.svg)" in page
        assert (DOCS / "images" / f"{name}.svg").exists()


def test_the_notes_are_short_and_their_evidence_exists():
    """What no link check sees: names of tests and of files."""
    notes = (ROOT / "BUILD_NOTES.md").read_text()
    assert len(notes.encode()) <= 12 * 1024
    text = "\n".join((notes, *(page.read_text() for page in (DOCS / "evidence").glob("*.md"))))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`((?:lrajax|experiments|tests|benchmarks|docs)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name


def modules(package):
    """A package's own modules, private ones too, those of the command line left out."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not re.search(r"__main__|\.runs\.", found.name):
            yield importlib.import_module(found.name)


def test_attributes_are_documented_by_their_names():
    """Each by itself, for the reference makes a table of them."""
    tuples = {
        value
        for module in modules(lrajax)
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "_fields") and value.__name__[0] != "_"
        if value.__module__ == module.__name__
    }
    assert lrajax.Params in tuples
    for one in tuples:
        names = re.findall(
            r"^  (\w.*?): ", inspect.cleandoc(one.__doc__).partition("utes:\n")[2], re.M
        )
        assert tuple(names) == one._fields, one


def test_everything_public_is_in_the_reference():
    """On the page of a module that has it; constants with a string below, or they are not shown."""
    targets = set(re.findall(r"^::: ([\w.]+)", "\n".join(map(pathlib.Path.read_text, PAGES)), re.M))
    shown = [module for module in modules(lrajax) if module.__name__ in targets]
    for module in [lrajax, *modules(lrajax)]:
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                assert value in shown, name
            elif f"lrajax.{name}" not in targets:
                assert any(getattr(one, name, None) is value for one in shown), name
                assert hasattr(value, "__qualname__") or name in described(), name
    for module in modules(lrajax):
        package, _, name = module.__name__.rpartition(".")
        assert {module.__name__, package} & targets - {"lrajax"} or name.startswith("_"), name


@pytest.mark.parametrize("name", lrajax.RULES)
def test_the_glossary_has_what_a_rule_hands_on(name, network, batch):
    """The fields of its `aux`, or `()`."""
    algo = lrajax.ALGORITHMS[name](network)
    params = jax.eval_shape(algo.init, jax.random.key(0))
    found = jax.eval_shape(
        lambda params: algo.compute_targets(params, batch, key=jax.random.key(0)), params
    )
    glossary = (DOCS / "glossary.md").read_text()
    (row,) = [line for line in glossary.splitlines() if re.match(rf"\|.*`{name}`.*\|", line)]
    kinds = {type(aux) for aux in (found.aux, *found.aux)}
    for kind in kinds:
        if hasattr(kind, "_fields"):
            assert f"{kind.__name__}({', '.join(kind._fields)})" in row
    assert ("| `()` |" in row) == (found.aux == ())


@functools.cache
def described():
    """Names of constants that a string follows."""
    return {
        re.match(r"\w+", ast.unparse(statement))[0]
        for module in modules(lrajax)
        for statement, text in itertools.pairwise(ast.parse(inspect.getsource(module)).body)
        if isinstance(text, ast.Expr) and isinstance(statement, ast.Assign | ast.AnnAssign)
    }
