"""A notebook without IPython: what is shown in it."""

import sys
from types import SimpleNamespace


class FakeNotebook:
    """Stands for IPython in a kernel; `shown` lists what was displayed, and each change of it."""

    def __init__(self):
        self.shown = []
        self.display = SimpleNamespace(display=self._display)
        self._at_the_end = []
        self._shell = SimpleNamespace(
            kernel=object(),
            events=SimpleNamespace(
                callbacks={"post_execute": self._at_the_end},
                register=lambda event, function: self._at_the_end.append(function),
                unregister=lambda event, function: self._at_the_end.remove(function),
            ),
        )

    def get_ipython(self):
        return self._shell

    def end_cell(self):
        """Do what IPython does once a cell has run."""
        for function in [*self._at_the_end]:
            function()

    def _display(self, thing, *, raw=False, display_id=False):
        if hasattr(thing, "_repr_mimebundle_"):
            thing._repr_mimebundle_(include=None, exclude=None)
        else:
            assert raw
            assert display_id
        self.shown.append(thing)
        return self

    def update(self, bundle, *, raw):
        assert raw
        self.shown.append(bundle)


def sit_at_notebook(monkeypatch):
    """From here on, code of this process finds itself in a notebook; returns the notebook."""
    notebook = FakeNotebook()
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    return notebook
