"""The progress of a sweep, as a bar or as lines of log.

At a terminal or in a notebook there is one bar for the whole sweep, weighted by FLOPs, with the
time left at the mean speed so far, and under it a line for each running trial. Elsewhere, each
trial that ends is a line of log.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence

from flops_fit.display.bars import BarOfPhases
from flops_fit.display.notebook import tell
from flops_fit.display.number_text import loss, percent
from flops_fit.records import Event, Trial
from flops_fit.sweep.plan.row_optimum import optima_in_words

_LOG = logging.getLogger("flops_fit")


class Progress:
    """The bar and lines of a sweep; called with each event. Enter it while the sweep runs."""

    def __init__(
        self,
        trials: Sequence[Trial],
        losses: Mapping[str, float],
        *,
        to_come: float = 0.0,
        size_param: str = "size",
        data_unit: str = "tokens",
        num_examples: int | None = None,
        bar: BarOfPhases | None = None,
    ) -> None:
        """Draw the bar as it stands.

        Args:
            trials: The planned trials.
            losses: Held-out loss of those that ended before, by id; NaN where one diverged.
            to_come: FLOPs expected beyond these trials.
            size_param: Name of the size parameter.
            data_unit: What D counts.
            num_examples: Examples in the training data; None if unknown.
            bar: The bar of the whole sweep, of which this is a phase; by default one of its own.
        """
        self._to_come = to_come
        self._trials = {trial.trial_id: trial for trial in trials}
        self._losses = dict(losses)
        self._size_param = size_param
        self._unit = data_unit
        self._num_examples = num_examples
        self._spent = {trial_id: self._trials[trial_id].flops for trial_id in losses}
        self._timed = False
        self._handler: logging.Handler | None = None
        self._level_before = logging.NOTSET
        total = sum(trial.flops for trial in trials) + to_come
        self._own_bar = BarOfPhases()
        self._bar = (bar or self._own_bar).next_phase("sweep", total, sum(self._spent.values()))

    def __enter__(self) -> Progress:
        # A library must not configure logging; without any handler the lines would be lost.
        if self._bar is None and not _LOG.hasHandlers():
            self._handler = logging.StreamHandler(sys.stderr)
            _LOG.addHandler(self._handler)
            self._level_before = _LOG.level
            _LOG.setLevel(logging.INFO)
        return self

    def __exit__(self, *error: object) -> None:
        self._own_bar.__exit__(*error)
        if self._handler is not None:
            _LOG.removeHandler(self._handler)
            _LOG.setLevel(self._level_before)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._advance(event)
        if event.state == "running":
            self._show(event)
            return
        if event.state == "resumed":
            self.say(f"{event.label}: resumes from its checkpoint")
            return
        if self._bar is not None:
            self._bar.end_line(event.trial_id)
        if event.state != "failed":  # a failed trial is run again
            self._losses[event.trial_id] = event.loss if event.state == "complete" else math.nan
        text = f"[{len(self._losses)}/{len(self._trials)}] {event.label}: {event.state}"
        text += f", loss {loss(event.loss)}" if event.state == "complete" else ""
        if self._bar is None:
            _LOG.info("%s", text)
        else:
            self._bar.say(text)
        self._say_optimum(event.trial_id)

    def _say_optimum(self, trial_id: str) -> None:
        """Print the optimum of a trial's IsoFLOP row, if all its trials have ended."""
        trial = self._trials.get(trial_id)
        if trial is None:  # another driver has added it
            return
        sweep = [t for t in self._trials.values() if t.role == trial.role == "sweep"]
        budget = trial.compute_budget
        for text in optima_in_words(
            sweep, self._losses, self._size_param, num_examples=self._num_examples, budget=budget
        ):
            self.say(text)

    @property
    def num_ended(self) -> int:
        """Trials that have a loss or have diverged."""
        return len(self._losses)

    def summary(self) -> str:
        """How far the sweep is, as Markdown."""
        trials, spent = list(self._trials.values()), sum(self._spent.values())
        return summary(
            trials,
            self._losses,
            self._size_param,
            spent,
            to_come=self._to_come,
            num_examples=self._num_examples,
        )

    def say(self, text: str) -> None:
        """Print a line, above or below the bar if there is one."""
        if self._bar is None:
            tell(text)
        else:
            self._bar.say(text)

    def _advance(self, event: Event) -> None:
        """Move the bar."""
        # A trial that starts over counts again only from where it had been.
        spent_before = self._spent.get(event.trial_id, 0.0)
        self._spent[event.trial_id] = max(event.flops, spent_before)
        if self._bar is None:
            return
        if not self._timed:
            self._bar.start_clock()  # the start of the workers is not part of the mean speed
            self._timed = True
        self._bar.advance(max(0.0, event.flops - spent_before))

    def _show(self, event: Event) -> None:
        """Update the line of a running trial."""
        if self._bar is None:
            return
        trial = self._trials.get(event.trial_id)  # None if another driver has added it
        share = event.flops / trial.flops if trial else math.nan
        speed = f", {event.tokens_per_second:,.0f} {self._unit}/s"
        self._bar.write_line(
            event.trial_id,
            f"{event.label}  {percent(share)}  loss {loss(event.loss)}"
            + (speed if math.isfinite(event.tokens_per_second) else ""),
        )


def summary(
    trials: Sequence[Trial],
    losses: Mapping[str, float],
    size_param: str,
    spent: float,
    *,
    to_come: float = 0.0,
    num_examples: int | None = None,
) -> str:
    """How far a sweep is, as Markdown.

    Args:
        trials: The planned trials.
        losses: Held-out loss of those that ended, by id; NaN where one diverged.
        size_param: Name of the size parameter.
        spent: FLOPs spent on them.
        to_come: FLOPs expected beyond these trials.
        num_examples: Examples in the training data; None if unknown.
    """
    num_ended = sum(trial.trial_id in losses for trial in trials)
    share = spent / (sum(trial.flops for trial in trials) + to_come)
    head = (
        f"{num_ended} of {len(trials)} trials have ended, {percent(share)} of the FLOPs are spent."
    )
    sweep = [trial for trial in trials if trial.role == "sweep"]
    optima = optima_in_words(sweep, losses, size_param, num_examples=num_examples)
    return "\n- ".join([head, *optima])
