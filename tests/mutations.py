"""Breaks the numerical code in one place at a time, and sees whether a quick test notices.

    python tests/mutations.py                   all of them
    python tests/mutations.py --sample=200      that many, spread over the files
    python tests/mutations.py lra_e --list      names those of files whose path contains a word

The places come from the syntax tree, so that a renamed variable changes nothing here: signs,
factors and terms dropped, sums and differences exchanged, comparisons, indices and numbers moved by
one, branches exchanged. Defaults of arguments, annotations and `raise` statements are left alone.
A forked child imports the package with one such change and runs the tests named for the file until
one fails. Ends with an error if fewer than 95 % are caught.
"""

import argparse
import ast
import importlib
import importlib.machinery
import itertools
import os
import pathlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "lrajax"
# Nothing is computed there: files, and the application, whose tests are processes.
READERS = ("cifar.py", "digits.py", "idx.py", "own.py", "tfds.py")
ELSEWHERE = ("runs", "__init__.py", "__main__.py", "checkpoint.py", *READERS)

# The tests that should notice, quickest first; for a file that is not here those of its name,
# or else the contract of the rules.
TESTS = {
    "augment": ["test_augment.py"],
    "dataset": ["test_own_data.py", "test_augment.py"],
    "split": ["test_data.py"],
    "standardize": ["test_augment.py"],
    "predictive_coding": ["test_predictive_coding.py", "test_wider_layers.py"],
    "settle": ["test_predictive_coding.py", "test_equil_prop.py"],
    "base": ["test_state.py", "test_network.py"],
    "checks": ["test_network.py", "test_arguments.py", "test_contract.py"],
    "networks": [
        "test_network.py",
        "test_architectures.py",
        "test_compose.py::test_tied_backprop_is_the_gradient_of_a_recurrent_network",
    ],
    "steps": [
        "test_rfa.py",
        "test_lra_e.py",
        "test_rec_lra.py",
        "test_network.py",
        "test_state.py",
        "test_any_loss.py::test_a_loss_that_is_not_defined_for_the_output_is_refused",
    ],
    "diagnostics": [
        "test_diagnostics.py",
        "test_faults.py::test_the_watch_names_the_first_step_and_quantity",
    ],
    "training": [
        "test_training.py",
        "test_state.py",
        "test_faults.py::test_divergence_is_kept_at_its_first_epoch_and_never_selected",
    ],
    "compose": ["test_compose.py", "test_stochastic.py", "test_state.py"],
    "products": ["test_layers.py", "test_affine.py", "test_dfa.py", "test_wider_layers.py"],
    "dtp": [
        "test_dtp.py",
        "test_wider_layers.py::test_decoders_give_to_the_units_that_were_pooled_and_learn_from_them",
        "test_wider_layers.py::test_dtps_topmost_hidden_target_goes_down_through_the_output_layer",
    ],
    "rec_lra": [
        "test_rec_lra.py",
        "test_wider_layers.py::"
        "test_rec_lras_e_learns_from_the_displacement_of_the_units_that_were_pooled",
    ],
    "affine": ["test_layers.py", "test_affine.py"],
    "convolution": ["test_affine.py"],
    "minimal_filtering": ["test_affine.py"],
    "rule": [
        "test_records.py::test_a_record_names_hyperparameters_of_its_rule",
        "test_arguments.py",
        "test_contract.py",
    ],
    "checking": [
        "test_wider_layers.py::test_check_layer_passes_the_librarys_own",
        "test_wider_layers.py::test_check_layer_names_what_is_wrong",
    ],
    "below": ["test_wider_layers.py"],
    "blocks": ["test_wider_layers.py"],
    "norms": ["test_wider_layers.py"],
    "wrappers": ["test_wrappers.py", "test_layers.py"],
    "rfa": ["test_rfa.py", "test_properties.py::test_no_two_weights_are_drawn_alike"],
    "dfa": ["test_dfa.py", "test_properties.py::test_no_two_weights_are_drawn_alike"],
}
# Of every rule, since with dense layers no test sees which activity below it hands to a layer.
POOLED = "test_errors_go_to_the_units_that_were_pooled"
BOUNDS = "test_hyperparameters_are_bound_where_their_description_says"
SECONDS = 200  # of a core, for a mutation that never ends


class Mutation(NamedTuple):
    """One change: of which file, its number there, at which line, and how it reads."""

    path: pathlib.Path
    number: int
    line: int
    old: str
    new: str

    def __str__(self):
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.old}  ->  {self.new}"


OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
REDUCTIONS = {"sum": "mean", "mean": "sum", "max": "min", "min": "max"}
SEQUENCES = (ast.Tuple, ast.List, ast.ListComp, ast.JoinedStr)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of an expression."""
    match node:
        case ast.BinOp(left, op, right):
            joins = any(isinstance(side, SEQUENCES) for side in (left, right))
            if type(op) in OPERATORS and not joins:
                yield ast.BinOp(left, OPERATORS[type(op)](), right)
                yield left
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.Compare(left, [op], right) if type(op) in COMPARISONS:
            yield ast.Compare(left, [COMPARISONS[type(op)]()], right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(bool()):
            return
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(float() as value):
            yield ast.Constant(2 * value or 1.0)
        case ast.Subscript(value, ast.Name() as index, context):
            yield ast.Subscript(value, ast.BinOp(index, ast.Sub(), ast.Constant(1)), context)
        case ast.Call(ast.Name("reversed"), [argument], []):
            yield argument
        case ast.Call(ast.Attribute(value, name, context), arguments, keywords) if (
            name in REDUCTIONS
        ):
            function = ast.Attribute(value, REDUCTIONS[name], context)
            yield ast.Call(function, arguments, keywords)


def places(node: ast.AST, function: bool = False) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where the expressions of functions' bodies hang: parent, field, position."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "args", "decorator_list") and not isinstance(
            node, ast.Call
        ):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for i, child in children:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Raise, ast.JoinedStr)):
                continue
            if function and isinstance(child, ast.expr):
                yield node, field, i
            inside = function or isinstance(child, (ast.FunctionDef, ast.Lambda))
            yield from places(child, inside)


def changes(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every old and new expression in the order of the text; the tree has the one just given."""
    for parent, field, i in places(tree):
        held = getattr(parent, field)
        node = held if i is None else held[i]
        for new in variants(node):
            _put(parent, field, i, ast.fix_missing_locations(ast.copy_location(new, node)))
            yield node, new
            _put(parent, field, i, node)


def _put(parent, field, i, node):
    if i is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[i] = node


def mutations_of(path: pathlib.Path) -> list[Mutation]:
    """All changes of a file."""
    found = enumerate(changes(ast.parse(path.read_text())))
    return [
        Mutation(path, number, old.lineno, ast.unparse(old), ast.unparse(new))
        for number, (old, new) in found
    ]


def mutant(mutation: Mutation) -> ast.Module:
    """The file with the change."""
    tree = ast.parse(mutation.path.read_text())
    next(itertools.islice(changes(tree), mutation.number, None))
    return tree


def files() -> list[pathlib.Path]:
    """The numerical code."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if not set(path.relative_to(PACKAGE).parts) & set(ELSEWHERE)]


def tests_of(path: pathlib.Path) -> list[str]:
    """The tests that should notice a change of a file."""
    stem = path.stem.removeprefix("_")
    own = f"test_{stem}.py"
    named = [own] if (ROOT / "tests" / own).exists() else ["test_contract.py"]
    tests = TESTS.get(stem, named)
    every = [f"test_arguments.py::{BOUNDS}", f"test_wider_layers.py::{POOLED}"]
    return [*tests, *every] if path.parent.name == "algorithms" else tests


def selected(path: pathlib.Path) -> list[str]:
    """What narrows these tests: of those that run every rule, a rule's file needs its own."""
    rule = path.stem.removeprefix("_")
    own = path.parent.name == "algorithms" and f"test_{rule}.py" in tests_of(path)
    return ["-k", f"not {POOLED} or {rule}"] if own else []


def fails(path: pathlib.Path, tree: ast.Module | None, tests: list[str]) -> bool:
    """Whether a test fails, or hangs, in a child that imports `tree` as the file."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if tree is not None:
        _import_as(path, tree)
    words = ["-x", "-n0", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    status = 1
    try:
        paths = (str(ROOT / "tests" / test) for test in tests)
        status = int(pytest.main([*words, *selected(path), *paths]))
    finally:
        os._exit(status)


def _import_as(path, tree):
    """Compiles `tree` wherever the file would be imported."""
    code, load = compile(tree, str(path), "exec"), importlib.machinery.SourceFileLoader.get_code

    def get_code(self, name):
        return code if self.path == str(path) else load(self, name)

    importlib.machinery.SourceFileLoader.get_code = get_code


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", default=[""], help="parts of files' paths")
    parser.add_argument("--sample", type=int, default=0, help="so many, spread over the files")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--list", action="store_true", help="name them and run nothing")
    given = parser.parse_args()
    chosen = [path for path in files() if any(word in str(path) for word in given.words)]
    every = [mutation for path in chosen for mutation in mutations_of(path)]
    if given.sample:
        # As drawn: what is done when the script is interrupted is a fair sample too.
        every = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    if given.list:
        print(*every, f"{len(every)} mutations", sep="\n")
        return
    # A child inherits what costs most of its start, but plugins of pytest; the package it imports
    # anew.
    sys.path.insert(0, str(ROOT))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    with tempfile.TemporaryDirectory() as programs:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
        for name in ("beartype", "chex", "jax", "optax", "sklearn.datasets"):
            importlib.import_module(name)
        started, survivors, sound = time.monotonic(), [], set()
        for done, mutation in enumerate(every):
            path = mutation.path
            print(f"{done} of {len(every)}", end="\r", file=sys.stderr, flush=True)
            if path not in sound and fails(path, None, tests_of(path)):
                sys.exit(f"{path.name}: {tests_of(path)} fail as they are")
            sound.add(path)
            if not fails(mutation.path, mutant(mutation), tests_of(mutation.path)):
                survivors.append(mutation)
                print(f"survives: {mutation}", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{len(every) - len(survivors)} of {len(every)} caught in {minutes:.0f} min")
    sys.exit(20 * len(survivors) > len(every))


if __name__ == "__main__":
    main()
