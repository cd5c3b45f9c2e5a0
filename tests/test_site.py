"""docs/sort.js: the order in which the site sorts its tables."""

import json
import pathlib
import shutil
import subprocess

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def order(texts, descending=False):
    """What the script makes of a column, without a browser."""
    page = "globalThis.document = {querySelectorAll: () => []};"
    call = f"console.log(JSON.stringify(order({json.dumps(texts)}, {json.dumps(descending)})))"
    script = page + (DOCS / "sort.js").read_text() + call
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_page_has_the_script():
    assert "extra_javascript: [sort.js]" in (DOCS.parent / "mkdocs.yml").read_text()


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize(
    ("texts", "ascending", "descending"),
    [
        (["2.79 [2.49, 3.16] (4)", "2.5 [2.3, 2.7] (1)", "10.1"], [1, 0, 2], [2, 0, 1]),
        (["+0.10 [-0.20, +0.44]", "", "-0.17 [-0.57, +0.30]"], [2, 0, 1], [0, 2, 1]),
        (["1", "0.06", "2e-05", "–"], [2, 1, 0, 3], [0, 1, 2, 3]),
        (["2,000", "30", "−4"], [2, 1, 0], [0, 1, 2]),
        (["RFA", "LRA-E", "2 rules"], [2, 1, 0], [0, 1, 2]),
        (["1.0", "1.00", "0"], [2, 0, 1], [0, 1, 2]),  # equal ones stay as they stand
    ],
)
def test_a_column_sorts_by_its_first_number_or_as_text(texts, ascending, descending):
    assert order(texts) == ascending
    assert order(texts, descending=True) == descending
