"""What a notebook shows, in a kernel of Jupyter."""

import sys
import textwrap

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.integration

FITTED = """
import numpy as np
import pandas as pd
import flops_fit
N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e6, 6), np.geomspace(1e6, 1e8, 5)))
runs = pd.DataFrame({"N": N, "D": D, "loss": 1.7 + 400 / N**0.34 + 410 / D**0.28})
result = flops_fit.fit(runs)
"""
OWN_MODEL = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
import flops_fit

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
recipe = flops_fit.Recipe(learning_rate=0.01, batch_size=8, eval_examples=64)
result = flops_fit.find_optimal(
    Net, "width", {}, TensorDataset(x, x.argmax(1) % 3), nn.functional.cross_entropy,
    [1e6, 2e6], sizes=[4, 6, 8, 11], recipe=recipe, name="own", workers=2,
)
set(result.runs["state"])
"""


def execute(folder, *sources, **options):
    """The outputs of each cell."""
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source)) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(folder)}}
    options = {"timeout": 600, "kernel_name": "python3", "resources": where, **options}
    nbclient.NotebookClient(notebook, **options).execute()
    return [cell.outputs for cell in notebook.cells]


def pictures(outputs):
    return [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize(
    "first", ["", "%matplotlib inline", "import matplotlib.pyplot as plt", "%matplotlib agg"]
)
def test_a_figure_shows_itself_once(tmp_path, first):
    *_, last, inside, closed, kept, again, broken, after = execute(
        tmp_path, first, FITTED, "result.plot('isoflops')", "display(result.plot('scaling')); 1",
        "result.plot('scaling');", "figure = result.plot('scaling'); figure.axes[0].set_title('x')",
        "figure", "for kind in ('scaling', 'isoflops', 'none'): result.plot(kind)", "1 + 1",
        allow_errors=True,
    )  # fmt: skip
    shown = [len(pictures(outputs)) for outputs in (last, inside, closed, kept, again)]
    assert shown == [1] * 5
    assert [output.output_type for output in broken].count("display_data") == 2
    assert len(after) == 1


def test_a_model_of_a_cell_is_trained_by_workers_and_nothing_is_red(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    (outputs,) = execute(tmp_path, OWN_MODEL)
    assert outputs[-1]["data"]["text/plain"] == "{'complete'}"
    red = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert [text for text in red if "FlopsFitWarning" not in text] == []
    bars = [output["data"] for output in outputs if "text/html" in output.get("data", {})]
    assert bars[-1]["text/plain"].startswith("sweep 100 %, ")
