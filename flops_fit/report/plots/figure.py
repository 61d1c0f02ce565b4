"""Figures that a notebook shows, without pyplot, `%matplotlib inline` or a call of `show`."""

from __future__ import annotations

import io
from typing import Any, TypeVar

from matplotlib.figure import Figure

from flops_fit.display.notebook import note_shown, show_at_end_of_cell

_F = TypeVar("_F")
# Pixels of a screen of high resolution for each of a common one.
SHARPNESS = 1.5


class NotebookFigure(Figure):
    """A Matplotlib figure that IPython shows as a picture.

    Matplotlib's inline backend, where it is active, shows figures of pyplot at the end of a cell.
    This one is none of those, and is shown once either way: where a cell displays it, or else at
    the cell's end.
    """

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Nothing: IPython asks for this before it draws the figure, by whichever formatter."""
        note_shown(self)
        return {}

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The picture, and its width and height on the page."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=SHARPNESS * self.dpi)
        width, height = (round(inches * self.dpi) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


def for_the_reader(figure: _F) -> _F:
    """A figure that a user has asked for: a notebook shows it, whatever becomes of it."""
    if isinstance(figure, NotebookFigure):
        show_at_end_of_cell(figure)
    return figure
