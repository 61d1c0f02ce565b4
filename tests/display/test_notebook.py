"""Where lines go, in a notebook and elsewhere."""

import sys
from types import SimpleNamespace

import pytest
from notebooks import sit_at_notebook

from flops_fit.display import notebook


def test_a_kernel_is_a_notebook_and_its_lines_are_not_red(monkeypatch, capsys):
    sit_at_notebook(monkeypatch)
    assert notebook.in_notebook()
    notebook.tell("planning")
    assert capsys.readouterr() == ("planning\n", "")


@pytest.mark.parametrize(
    "module",
    [
        None,  # not installed
        SimpleNamespace(),  # being imported
        SimpleNamespace(get_ipython=lambda: None),  # imported by a library in a script
        SimpleNamespace(get_ipython=lambda: SimpleNamespace()),  # IPython in a terminal
    ],
)
def test_elsewhere_output_stays_free_for_pipes(monkeypatch, capsys, module):
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not notebook.in_notebook()
    notebook.tell("planning")
    assert capsys.readouterr() == ("", "planning\n")
