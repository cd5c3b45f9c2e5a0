"""The notebook, executed from a clean kernel."""

import pathlib
import re

import nbclient
import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "lrajax_colab.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


# Jupyter's own packages warn of each other.
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs_from_a_clean_kernel(notebook, tmp_path):
    copy = nbformat.from_dict(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(copy, timeout=180, kernel_name="python3", resources=resources).execute()
    text = "".join(output.get("text", "") for output in outputs(copy))
    errors = [float(error) for error in re.findall(r": ([\d.]+) ± ", text)]
    assert len(errors) == 6  # four values of β and two rules
    assert errors[-2] < 6
    assert errors[-1] < 6
    figures = [output for output in outputs(copy) if output.output_type == "display_data"]
    assert len(figures) == 3
    assert not [output for output in outputs(copy) if output.get("name") == "stderr"]


def test_notebook_is_kept_small(notebook):
    assert [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert NOTEBOOK.stat().st_size < 100_000
