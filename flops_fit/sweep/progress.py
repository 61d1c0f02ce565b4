"""One bar for the whole sweep, weighted by FLOPs, with the time left.

Where nobody watches (no terminal, no notebook) there is no bar, only a line per finished trial.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm


@dataclass(frozen=True)
class Event:
    """What a worker says: how far a trial is, or how it ended.

    Attributes:
        trial_id: Whose.
        label: The trial in words.
        flops: FLOPs spent on it so far.
        loss: Training loss so far, or the held-out loss at the end.
        state: "running", "resumed", or the state it ended in.
    """

    trial_id: str
    label: str
    flops: float
    loss: float
    state: str = "running"


class Progress:
    """A tqdm bar where somebody watches; a line per finished trial in any case."""

    def __init__(self, total_flops: float, num_trials: int, done: dict[str, float]) -> None:
        self._spent = dict(done)
        self._ended = set(done)
        self._num_trials = num_trials
        self._bar: Any = tqdm(
            total=total_flops,
            initial=sum(done.values()),
            unit="FLOP",
            unit_scale=True,
            desc="sweep",
            disable=not _watched(),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}FLOPs "
            "[{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        self._bar.update(max(0.0, event.flops - self._spent.get(event.trial_id, 0.0)))
        self._spent[event.trial_id] = max(event.flops, self._spent.get(event.trial_id, 0.0))
        if event.state == "running":
            self._bar.set_postfix_str(f"{event.label} loss {event.loss:.4g}", refresh=False)
            return
        if event.state == "resumed":
            self.say(f"{event.label}: goes on from its checkpoint")
            return
        self._ended.add(event.trial_id)
        text = f"[{len(self._ended)}/{self._num_trials}] {event.label}: {event.state}"
        text += f", loss {event.loss:.4f}" if event.state == "complete" else ""
        self.say(text)

    def say(self, text: str) -> None:
        """A line on standard error, above the bar if there is one."""
        self._bar.write(text, file=sys.stderr)


def _watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
