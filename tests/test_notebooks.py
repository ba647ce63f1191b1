"""The notebooks run from top to bottom, and each is the same as its text."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbclient
import pytest
from quick import library_environment

pytestmark = pytest.mark.long

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))


SAYS = {
    "01_ratings_to_recommendations": "MAE",
    "02_throughput": "times faster",
    "03_serve_and_explain": "because you rated",
}
"""What each notebook prints of its result."""
SHORTER = {"01_ratings_to_recommendations": ("epochs=6", "epochs=1")}
"""What is changed here in the text of a notebook, so that it trains for a shorter time."""
MEASURES = "02_throughput"
"""It compiles as users do: the others spend most of their time in compiling, and this one times what it compiled."""


def test_every_notebook_is_known():
    assert {path.stem for path in NOTEBOOKS} == set(SAYS)


@pytest.mark.parametrize("text", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_its_text(text):
    paired = jupytext.read(text.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in paired.cells] == [
        (c.cell_type, c.source) for c in jupytext.read(text).cells
    ]


@pytest.mark.slow  # the README's example and the pages, which run each time, take the same ways
@pytest.mark.parametrize("text", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own client, which is none of ours
def test_notebook_runs(text, tmp_path, monkeypatch):
    variables = {"JAX_PLATFORMS": "cpu"} if text.stem == MEASURES else library_environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = jupytext.read(text)
    for there, here in [SHORTER[text.stem]] if text.stem in SHORTER else []:
        assert sum(cell.source.count(there) for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(there, here)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert SAYS[text.stem] in printed
