"""tests/mutations.py, which is run by hand: whether it still fits the code."""

import mutations
import pytest


@pytest.mark.parametrize("path", mutations.MUTATIONS)
def test_what_a_mutation_replaces_is_there_once(path):
    source = (mutations.ROOT / path).read_text()
    _, pairs = mutations.MUTATIONS[path]
    assert {old: source.count(old) for old, _ in pairs} == {old: 1 for old, _ in pairs}
