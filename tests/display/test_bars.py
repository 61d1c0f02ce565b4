"""The bar of a notebook; that of a terminal is tested where sweeps use it."""

import io

import pytest
from notebooks import sit_at_notebook
from tqdm import tqdm

from flops_fit.display import bars
from flops_fit.display.bars import BarOfPhases, NotebookBar, TerminalBar, new_bar


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def notebook(monkeypatch):
    return sit_at_notebook(monkeypatch)


@pytest.fixture
def clock():
    return Clock()


def test_the_bar_has_share_flops_and_times(notebook, clock):
    bar = NotebookBar("sweep", 4e9, 1e9, clock)
    assert notebook.shown[0]["text/plain"] == "sweep 25 %, 1e+09 of 4e+09 FLOPs"
    clock.now += 5  # the workers start
    bar.start_clock()
    clock.now += 60
    bar.advance(1e9)
    shown = notebook.shown[-1]
    assert shown["text/plain"] == "sweep 50 %, 2e+09 of 4e+09 FLOPs, 1 min, about 2 min left"
    assert '<progress value="0.5000" max="1"' in shown["text/html"]
    assert shown["text/plain"] in shown["text/html"]


def test_what_is_at_work_has_a_line_until_it_ends(notebook, clock):
    bar = NotebookBar("sweep", 4e9, 0, clock)
    for key in ("a", "b"):
        clock.now += 1
        bar.write_line(key, f"trial {key} <i>")
    assert notebook.shown[-1]["text/html"].count("<br>") == 2
    assert "trial b &lt;i&gt;" in notebook.shown[-1]["text/html"]
    bar.end_line("a")
    bar.end_line("never seen")
    clock.now += 1
    bar.advance(1)
    assert "trial a" not in notebook.shown[-1]["text/html"]
    bar.close()
    assert "trial b" not in notebook.shown[-1]["text/html"]


def test_many_events_in_a_moment_are_one_change_of_the_page(notebook, clock):
    bar = NotebookBar("sweep", 100, 0, clock)
    for _ in range(100):
        bar.advance(1)
    assert len(notebook.shown) == 1
    bar.close()
    assert notebook.shown[-1]["text/plain"] == "sweep 100 %, 100 of 100 FLOPs"
    assert len(notebook.shown) == 2


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (100, "sweep 100 %, 100 of 100 FLOPs, 1 min"),
        (50, "sweep 50 %, 50 of 100 FLOPs, 1 min"),
    ],
)
def test_what_is_left_of_it(notebook, clock, done, left):
    bar = NotebookBar("sweep", 100, 0, clock)
    clock.now += 60
    bar.advance(done)
    bar.close()
    assert notebook.shown[-1]["text/plain"] == left
    assert left in notebook.shown[-1]["text/html"]


def test_all_phases_have_one_bar_and_its_time_is_that_of_all(notebook, clock, monkeypatch):
    monkeypatch.setattr(bars, "new_bar", lambda *args: NotebookBar(*args, clock))
    with BarOfPhases() as phases:
        for total, done in ((4e9, 1e9), (8e9, 2e9)):
            bar = phases.next_phase("sweep", total, done)
            clock.now += 5  # the workers start
            bar.start_clock()
            clock.now += 60
            bar.advance(1e9)
            bar.write_line("a", "trial a")
        shown = notebook.shown[-1]["text/plain"]
        assert shown == "sweep 38 %, 3e+09 of 8e+09 FLOPs, 2 min 5 s, about 5 min 12 s left"
        phases.finish(6e9)
    assert notebook.shown[-1]["text/plain"] == "sweep 100 %, 6e+09 of 6e+09 FLOPs, 2 min 5 s"
    assert "trial a" not in notebook.shown[-1]["text/html"]
    assert sum(thing is not None and thing["text/html"] == "" for thing in notebook.shown) == 0
    phases.finish(1.0)  # it has ended


def test_the_bar_of_a_terminal_goes_on_too(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(bars, "tqdm", lambda **options: tqdm(file=screen, **options))
    monkeypatch.setattr(bars, "new_bar", TerminalBar)
    with BarOfPhases() as phases:
        phases.next_phase("sweep", 4.0, 1.0).advance(1.0)
        bar = phases.next_phase("sweep", 8.0, 2.0)
        bar.start_clock()
        bar.write_line("a", "trial a")
        phases.finish(8.0)
    shown = screen.getvalue()
    assert "sweep  25%|" in shown
    assert "| 8.00/8.00FLOPs" in shown.rsplit("sweep 100%|", 1)[1]


def test_lines_that_stay_are_standard_output(notebook, clock, capsys):
    NotebookBar("sweep", 100, 0, clock).say("[1/5] complete")
    assert capsys.readouterr() == ("[1/5] complete\n", "")


def test_who_watches_gets_a_bar(notebook, monkeypatch):
    assert isinstance(new_bar("sweep", 1.0, 0.0), NotebookBar)
    monkeypatch.setitem(__import__("sys").modules, "IPython", None)
    assert new_bar("sweep", 1.0, 0.0) is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = new_bar("sweep", 1.0, 0.0)
    assert isinstance(bar, TerminalBar)
    bar.close()
