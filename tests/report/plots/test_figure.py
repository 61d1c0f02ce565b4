"""Figures in notebooks."""

import struct

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from flops_fit.report.plots.figure import SHARPNESS
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
