"""A notebook without IPython: what is shown in it."""

import sys
from types import SimpleNamespace


class FakeNotebook:
    """Stands for IPython in a kernel; `shown` lists what was displayed, and each change of it."""

    def __init__(self):
        self.shown = []
        self.display = SimpleNamespace(display=self._display)

    def get_ipython(self):
        return SimpleNamespace(kernel=object())

    def _display(self, bundle, *, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle, *, raw):
        assert raw
        self.shown.append(bundle)


def sit_at_notebook(monkeypatch):
    """From here on, code of this process finds itself in a notebook; returns the notebook."""
    notebook = FakeNotebook()
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    return notebook
