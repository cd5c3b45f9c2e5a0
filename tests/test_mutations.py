"""tests/mutations.py, which is run by hand: whether it finds places, and tests for them."""

import ast

import mutations


def test_places_come_from_the_syntax_tree(tmp_path):
    path = tmp_path / "rule.py"
    path.write_text(
        'def f(a: int = 3, b=-1):\n    """1 + 1"""\n    if a > 2:\n'
        '        raise ValueError(f"{a + 1}")\n    return reversed(-a * b[a]).sum(axis=0)\n'
    )
    found = {(mutation.old, mutation.new) for mutation in mutations.mutations_of(path)}
    assert found == {
        ("a > 2", "a >= 2"),
        ("2", "3"),
        ("reversed(-a * b[a]).sum(axis=0)", "reversed(-a * b[a]).mean(axis=0)"),
        ("reversed(-a * b[a])", "-a * b[a]"),
        ("-a * b[a]", "-a / b[a]"),
        ("-a * b[a]", "-a"),
        ("-a", "a"),
        ("b[a]", "b[a - 1]"),
        ("0", "1"),
    }


def test_a_mutant_differs_in_its_place_alone(tmp_path):
    path = tmp_path / "rule.py"
    path.write_text("def f(a, b):\n    return a - b[0]\n")
    mutants = [ast.unparse(mutations.mutant(m)) for m in mutations.mutations_of(path)]
    bodies = [mutant.split("return ")[1] for mutant in mutants]
    assert bodies == ["a + b[0]", "a", "a - b[1]"]


def test_there_are_many_and_their_tests_exist():
    found = [m for path in mutations.files() for m in mutations.mutations_of(path)]
    assert len(found) >= 150
    assert all(mutation.old != mutation.new for mutation in found)
    named = {test for path in mutations.files() for test in mutations.tests_of(path)}
    for test in named:
        file, _, function = test.partition("::")
        assert f"def {function}" in (mutations.ROOT / "tests" / file).read_text(), test
