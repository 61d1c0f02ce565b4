"""A progress bar with a line below it for each thing at work: in a terminal or in a notebook.

In a notebook it is HTML that is replaced as work goes on. That needs no widgets and no extension,
looks alike in JupyterLab, VS Code and Colab, and the last state is saved with the notebook.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from tqdm import tqdm

from flops_fit.display import notebook
from flops_fit.display.number_text import duration, flops, percent

EVERY_S = 0.25  # seconds between two changes of what a notebook shows


class Bar(Protocol):
    """What the progress of a sweep is shown on."""

    def start_clock(self) -> None:
        """What was done until now took no time; later calls have no effect."""

    def go_on(self, total: float, done: float) -> None:
        """Go on with other totals, and nothing at work.

        Args:
            total: All FLOPs.
            done: Those that are done.
        """

    def advance(self, done: float) -> None:
        """So many FLOPs more are done."""

    def write_line(self, key: str, text: str) -> None:
        """Set the line of something at work."""

    def end_line(self, key: str) -> None:
        """Remove such a line, if there is one."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """End the bar, and its lines; it stays as it stands."""


def new_bar(name: str, total: float, done: float) -> Bar | None:
    """A bar where somebody watches; None elsewhere.

    Args:
        name: What the bar is of.
        total: All FLOPs.
        done: Those that are done.
    """
    if notebook.in_notebook():
        return NotebookBar(name, total, done)
    return TerminalBar(name, total, done) if sys.stderr.isatty() else None


class BarOfPhases:
    """One bar for phases whose totals differ. A context manager: leaving it ends the bar."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def __enter__(self) -> BarOfPhases:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def next_phase(self, name: str, total: float, done: float) -> Bar | None:
        """The bar at the start of a phase; arguments as for `new_bar`, which makes the first."""
        if self._bar is None:
            self._bar = new_bar(name, total, done)
        else:
            self._bar.go_on(total, done)
        return self._bar

    def finish(self, total: float) -> None:
        """All phases have ended: so many FLOPs are done."""
        if self._bar is not None:
            self._bar.go_on(total, total)


class TerminalBar:
    """A bar of tqdm on standard error."""

    def __init__(self, name: str, total: float, done: float) -> None:
        self._lines: dict[str, Any] = {}
        self._clock_runs = False
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit="FLOP",
            unit_scale=True,
            desc=name,
            smoothing=0,  # the mean speed over the sweep: trials differ much in size
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}FLOPs "
            "[{elapsed}<{remaining}, {rate_fmt}]",
        )

    def start_clock(self) -> None:
        """What was done until now took no time; later calls have no effect."""
        if not self._clock_runs:
            self._bar.unpause()
        self._clock_runs = True

    def go_on(self, total: float, done: float) -> None:
        """Go on with other totals, and nothing at work."""
        self._end_lines()
        self._bar.initial += done - self._bar.n  # the speed is that of what was done here
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()

    def advance(self, done: float) -> None:
        """So many FLOPs more are done."""
        self._bar.update(done)

    def write_line(self, key: str, text: str) -> None:
        """Set the line of something at work."""
        if key not in self._lines:
            # tqdm counts positions downwards from the bar, as negative numbers.
            used = {line.pos for line in self._lines.values()}
            free = next(place for place in range(1, len(used) + 2) if -place not in used)
            self._lines[key] = tqdm(bar_format="{desc}", position=free, leave=False)
        self._lines[key].set_description_str(f"  {text}")

    def end_line(self, key: str) -> None:
        """Remove such a line, if there is one."""
        line = self._lines.pop(key, None)
        if line is not None:
            line.close()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar, and its lines; it stays as it stands."""
        self._end_lines()
        self._bar.close()

    def _end_lines(self) -> None:
        for key in list(self._lines):
            self.end_line(key)


class NotebookBar:
    """A bar in the output of a notebook's cell."""

    def __init__(
        self, name: str, total: float, done: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._total, self._done, self._clock = name, total, done, clock
        self._lines: dict[str, str] = {}
        self._closed = self._clock_runs = False
        self._done_before, self._started = done, clock()
        self._shown = clock()
        self._handle = notebook.show_html(self._as_html(), self._as_text())

    def start_clock(self) -> None:
        """What was done until now took no time; later calls have no effect."""
        if not self._clock_runs:
            self._done_before, self._started = self._done, self._clock()
        self._clock_runs = True

    def go_on(self, total: float, done: float) -> None:
        """Go on with other totals, and nothing at work."""
        self._lines.clear()
        self._done_before += done - self._done  # the speed is that of what was done here
        self._total, self._done = total, done
        self._show()

    def advance(self, done: float) -> None:
        """So many FLOPs more are done."""
        self._done += done
        self._show()

    def write_line(self, key: str, text: str) -> None:
        """Set the line of something at work."""
        self._lines[key] = text
        self._show()

    def end_line(self, key: str) -> None:
        """Remove such a line, if there is one."""
        self._lines.pop(key, None)

    def say(self, text: str) -> None:
        """Print a line below the bar."""
        notebook.tell(text)

    def close(self) -> None:
        """End the bar, and its lines; it stays as it stands."""
        self._lines.clear()
        self._closed = True
        self._show(now=True)

    def _show(self, *, now: bool = False) -> None:
        """Show how it stands, unless that was done a moment ago."""
        if now or self._clock() - self._shown >= EVERY_S:
            self._shown = self._clock()
            notebook.update_html(self._handle, self._as_html(), self._as_text())

    @property
    def _share(self) -> float:
        return min(1.0, self._done / self._total) if self._total else 1.0

    def _as_text(self) -> str:
        """Share, FLOPs and times."""
        elapsed, new = self._clock() - self._started, self._done - self._done_before
        words = [
            f"{self._name} {percent(self._share)}",
            f"{flops(self._done)} of {flops(self._total)} FLOPs",
        ]
        if elapsed:
            words.append(duration(elapsed))
        if new > 0 and self._share < 1 and not self._closed:
            left = elapsed * (self._total - self._done) / new
            words.append(f"about {duration(left)} left")
        return ", ".join(words)

    def _as_html(self) -> str:
        lines = "".join(f"<br><code>{html.escape(line)}</code>" for line in self._lines.values())
        return (
            f'<div><progress value="{self._share:.4f}" max="1" style="width:16em"></progress> '
            f"{html.escape(self._as_text())}{lines}</div>"
        )
