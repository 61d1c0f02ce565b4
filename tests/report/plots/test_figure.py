"""Figures in notebooks."""

import struct

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from notebooks import sit_at_notebook

from flops_fit.report.plots.figure import SHARPNESS, for_the_reader
from flops_fit.report.plots.style import new_figure


@pytest.mark.parametrize("panels", [1, 3, 4])
def test_a_notebook_gets_a_png_and_its_size_on_the_page(panels):
    figure, _ = new_figure(panels)
    assert isinstance(figure, Figure)
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width == pytest.approx(SHARPNESS * size["width"], abs=1)
    assert height == pytest.approx(SHARPNESS * size["height"], abs=1)


def test_the_inline_backend_does_not_show_it_once_more():
    """That backend shows the figures of pyplot at the end of a cell."""
    new_figure(1)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_figure_that_its_cell_does_not_show_is_shown_at_the_end_of_it(monkeypatch, times):
    notebook = sit_at_notebook(monkeypatch)
    figure, other = (for_the_reader(new_figure(1)[0]) for _ in range(2))
    for _ in range(times):
        notebook.display.display(figure)
    notebook.end_cell()
    assert notebook.shown == [*[figure] * max(times, 1), other]
    notebook.end_cell()  # of the next cell
    assert len(notebook.shown) == max(times, 1) + 1


def test_other_figures_are_left_to_those_who_made_them(monkeypatch):
    notebook = sit_at_notebook(monkeypatch)
    new_figure(1)  # for the report
    for_the_reader(plt.Figure())  # the user's own, on whose axes a plan was drawn
    notebook.end_cell()
    assert notebook.shown == []


def test_outside_of_notebooks_nothing_waits():
    figure = new_figure(1)[0]
    assert for_the_reader(figure) is figure
