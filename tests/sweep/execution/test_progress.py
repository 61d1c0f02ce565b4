"""What a sweep shows while it runs."""

import io
import logging
import math
from dataclasses import replace

import pytest
from notebooks import sit_at_notebook
from tqdm import tqdm

from flops_fit.display import bars
from flops_fit.records import Event, Trial
from flops_fit.sweep.execution import progress as module
from flops_fit.sweep.execution.progress import Progress

FIRST = Trial("a" * 16, 1e9, 8, 0, 100, 10**6, 1e9, 100, 8, 0.1, 0)
ROW = [replace(FIRST, trial_id=f"{k:016x}", size=8 * 2**k, num_params=100 * 2**k) for k in range(5)]
LOSSES = [2.4, 2.1, 2.0, 2.1, 2.4]


def ended(trial, loss, state="complete"):
    return Event(trial.trial_id, trial.label("width"), trial.flops, loss, state)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal; returns what stands on it."""
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(bars, "tqdm", lambda **options: tqdm(file=screen, **options))
    return screen


def test_without_a_terminal_each_trial_that_ends_is_a_line_of_log(caplog, capsys):
    with caplog.at_level(logging.INFO, "flops_fit"), Progress(ROW, {}, size_param="width") as show:
        show(Event(ROW[0].trial_id, "any", 5e8, 3.0))
        for trial, loss in zip(ROW, LOSSES, strict=True):
            show(ended(trial, loss))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "[1/5] width=8 C=1e+09: complete, loss 2.400"
    assert len(lines) == 5
    line = "C=1e+09: the loss is least near N = 400 (width=32 is nearest), 2.000\n"
    assert capsys.readouterr().err == line


def test_where_logging_is_not_set_up_the_lines_go_to_standard_error(capsys, monkeypatch):
    logger = logging.getLogger("flops_fit.test_progress")
    logger.propagate = False
    monkeypatch.setattr(module, "_LOG", logger)
    with Progress(ROW, {}) as show:
        show(ended(ROW[0], 2.4))
    assert capsys.readouterr().err == "[1/5] width=8 C=1e+09: complete, loss 2.400\n"
    assert logger.handlers == []


def test_failed_attempts_are_not_counted_as_ended(caplog):
    with caplog.at_level(logging.INFO, "flops_fit"), Progress(ROW, {}) as show:
        show(ended(ROW[0], math.nan, "failed"))
        show(ended(ROW[0], 2.4))
        show(ended(ROW[1], math.nan, "diverged"))
    starts = [record.getMessage().split("]")[0] for record in caplog.records]
    assert starts == ["[0/5", "[1/5", "[2/5"]


def test_a_terminal_shows_a_bar_and_a_line_for_each_trial_at_work(terminal):
    losses = {ROW[0].trial_id: 2.4}
    with Progress(ROW, losses, size_param="width", data_unit="examples") as show:
        for trial in ROW[1:3]:
            label = trial.label("width")
            show(Event(trial.trial_id, label, 5e8, 2.5, tokens_per_second=12345.6))
        shown = terminal.getvalue()
        assert "width=16 C=1e+09  50 %  loss 2.500, 12,346 examples/s" in shown
        assert "width=32 C=1e+09  50 %  loss 2.500" in shown
        show(ended(ROW[1], 2.1))
        show(Event(ROW[3].trial_id, "next", 1e8, 2.5))  # takes the line that is free
    assert "sweep  52%|" in terminal.getvalue()  # 2 of 5 done, two more half and a tenth


def test_trials_that_another_driver_has_added_are_shown_too(caplog):
    other = replace(FIRST, trial_id="f" * 16)
    with caplog.at_level(logging.INFO, "flops_fit"), Progress(ROW, {}) as show:
        show(Event(other.trial_id, "added", 1e8, 2.5))
        show(ended(other, 2.0))
    assert "complete, loss 2.000" in caplog.text


def test_a_notebook_shows_a_bar_and_nothing_in_red(monkeypatch, capsys):
    notebook = sit_at_notebook(monkeypatch)
    monkeypatch.setattr(bars, "EVERY_S", 0.0)
    with Progress(ROW, {}, size_param="width") as show:
        show(Event(ROW[0].trial_id, ROW[0].label("width"), 5e8, 2.5, tokens_per_second=12345.6))
        assert (
            "width=8 C=1e+09  50 %  loss 2.500, 12,346 tokens/s" in notebook.shown[-1]["text/html"]
        )
        show(ended(ROW[0], 2.4))
    assert "sweep 20 %" in notebook.shown[-1]["text/html"]  # four trials are left
    assert capsys.readouterr() == ("[1/5] width=8 C=1e+09: complete, loss 2.400\n", "")
