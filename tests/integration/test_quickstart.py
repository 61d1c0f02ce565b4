"""The quickstart notebook: executed in a kernel, and as it lies in the repository."""

import json
import re

import pytest

pytest.importorskip("nbclient")

import quickstart

# One worker runs them all: the notebook is executed once.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("quickstart")]


def shown(notebook, source, kind):
    """What the cell shows whose last line is this, or a call of this; in one kind."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    last = ["".join(cell["source"]).split("\n")[-1] for cell in code]
    (cell,) = (
        cell for cell, line in zip(code, last, strict=True) if source in (line, line.split("(")[0])
    )
    contents = [out["data"].get(kind) for out in cell["outputs"] if "data" in out]
    return ["".join(content) for content in contents if content is not None]


@pytest.fixture(scope="module")
def stored():
    return json.loads(quickstart.NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart").resolve()
    notebook = quickstart.execute(folder)  # smaller budgets show no law
    assert (folder / "report.html").stat().st_size > 100_000
    assert len(list((folder / "forecasts").iterdir())) == 1
    return quickstart.cleaned(notebook, folder)


@pytest.fixture(params=["stored", "executed"])
def notebook(request):
    return request.getfixturevalue(request.param)


def test_nothing_stands_in_red(notebook):
    streams = {
        output.get("name")
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream"
    }
    assert streams == {"stdout"}


@pytest.mark.parametrize("plot", ["result.plot", "comparison.plot"])
def test_a_figure_is_a_picture_and_is_shown_once(notebook, plot):
    assert len(shown(notebook, plot, "image/png")) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("plan", ">d_model</th>"),
        ("result.chinchilla_table()", ">d_model</th>"),
        ("result.predict(5e11)", "tokens per parameter"),
        ('result.predict(5e11, metric="accuracy")', "accuracy"),
        ("result.predict(hours=0.005)", "parameters"),
        ("comparison", ">multiplier, 95 %</th>"),
        ("result.checks", "<b>warn</b>"),
        ("result.summary", "95 % low"),
        ("result.forecast", ", d_model "),
    ],
)
def test_what_it_shows_is_a_table_or_remarks(notebook, source, words):
    assert words in shown(notebook, source, "text/html")[-1]


def test_one_bar_is_left_and_it_is_full(notebook):
    bars = [page for page in shown(notebook, "result", "text/html") if "<progress" in page]
    assert len(bars) == 1
    assert 'value="1.0000"' in bars[0]


def test_it_holds_no_path_of_the_machine(stored):
    text = quickstart.NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)
    assert len(text) < 650_000
